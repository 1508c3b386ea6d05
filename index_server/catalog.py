"""All pools of this server: made, loaded, found and deleted."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from index_server.engines.selection import check_engine
from index_server.index import IndexSettings
from index_server.limits import Limits
from index_server.pool import Pool
from index_server.spec import PoolSpec
from index_server.store.directory import PoolDirectory
from sealpool.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted, SealpoolError, Unavailable
from sealpool.runtime.logs import Logger


class PoolState(StrEnum):
    """Whether a pool can be used."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(slots=True)
class _Entry:
    spec: PoolSpec | None
    created_at: datetime | None
    pool: Pool | None = None
    failure: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolStatus:
    """A pool as GetPool shows it. `spec` is None where pool.json cannot be read, `pool` unless it is ready."""

    name: str
    state: PoolState
    failure: str
    spec: PoolSpec | None
    created_at: datetime | None
    pool: Pool | None


class PoolCatalog:
    """The pools by name.

    At start each pool is read in the background; one that cannot be read is FAILED, and does not stop the others.

    Threads: any.
    """

    def __init__(
        self,
        directory: PoolDirectory,
        *,
        settings: IndexSettings,
        limits: Limits,
        loading_threads: int,
        clock: Callable[[], datetime],
        log: Logger,
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._limits = limits
        self._clock = clock
        self._log = log
        self._guard = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._loader = ThreadPoolExecutor(loading_threads, thread_name_prefix="load")

    def start(self, on_loaded: Callable[[], None]) -> None:
        """Read all pools in the background; call `on_loaded` once each is ready or failed."""
        names = self._directory.names()
        for name in names:
            self._entries[name] = self._known(name)
        waiting = _Countdown(len(names), on_loaded)
        for name in names:
            self._loader.submit(self._load, name).add_done_callback(lambda _: waiting.count())
        if not names:
            on_loaded()

    def create(self, spec: PoolSpec) -> PoolStatus:
        """Make an empty pool.

        Raises
        ------
        InvalidArgument
            Something in the spec.
        AlreadyExists, ResourceExhausted
            The name is taken; there are too many pools, or the disk is full.
        """
        spec.check()
        check_engine(spec, self._settings.rules)
        created_at = self._clock()
        with self._guard:
            if spec.name in self._entries:
                raise AlreadyExists("pool", spec.name)
            if len(self._entries) >= self._limits.max_pools:
                raise ResourceExhausted("one more pool", limit=self._limits.max_pools, setting="max_pools")
            self._entries[spec.name] = _Entry(spec, created_at)
        made = False
        try:
            self._directory.create(spec, created_at, lambda path: Pool.create(path, spec))
            made = True
        finally:
            if not made:
                with self._guard:
                    del self._entries[spec.name]
        self._load(spec.name)
        return self.status(spec.name)

    def get(self, name: str) -> Pool:
        """Return a pool that can be used.

        Raises
        ------
        NotFound
            There is no such pool.
        Unavailable
            It is being read from disk.
        FailedPrecondition
            It could not be read.
        """
        status = self.status(name)
        if status.state is PoolState.LOADING:
            raise Unavailable(f"pool {name!r} is being read from disk", field="pool")
        if status.pool is None or status.state is PoolState.FAILED:
            raise FailedPrecondition(f"pool {name!r} cannot be used: {status.failure}", field="pool")
        return status.pool

    def status(self, name: str) -> PoolStatus:
        """Return how a pool is; raise NotFound if there is none."""
        with self._guard:
            entry = self._entries.get(name)
            if entry is None:
                raise NotFound("pool", name)
            return _status(name, entry)

    def statuses(self) -> list[PoolStatus]:
        """Return how all pools are, by name."""
        with self._guard:
            return [_status(name, entry) for name, entry in sorted(self._entries.items())]

    def delete(self, name: str) -> tuple[int, int]:
        """Delete a pool, whether it can be read or not; return its last version and its items, 0 where unknown.

        Raises
        ------
        NotFound
            There is no such pool.
        Unavailable
            It is being read from disk.
        """
        with self._guard:
            entry = self._entries.get(name)
            if entry is None:
                raise NotFound("pool", name)
            if entry.pool is None and not entry.failure:
                raise Unavailable(f"pool {name!r} is being read from disk", field="pool")
            # LOADING for all others until it is gone, so that nobody takes the name meanwhile.
            self._entries[name] = _Entry(entry.spec, entry.created_at)
        last = (entry.pool.version, entry.pool.size) if entry.pool else (0, 0)
        deleted = False
        try:
            if entry.pool:
                entry.pool.close()
            self._directory.delete(name)
            deleted = True
        finally:
            with self._guard:
                if deleted:
                    del self._entries[name]
                else:
                    self._entries[name] = _Entry(entry.spec, entry.created_at, failure="deleting it failed")
        return last

    def close(self) -> None:
        """Wait for what is under way and close all pools."""
        self._loader.shutdown(wait=True, cancel_futures=True)
        for status in self.statuses():
            if status.pool:
                status.pool.close()
        self._directory.close()

    def _known(self, name: str) -> _Entry:
        try:
            return _Entry(*self._directory.read(name))
        except FailedPrecondition as error:
            return _Entry(None, None, failure=error.message)

    def _load(self, name: str) -> None:
        entry = self._entries[name]
        if entry.spec is None:
            return
        failure, pool = "reading it ended unexpectedly", None
        try:
            check_engine(entry.spec, self._settings.rules)
            pool = Pool.load(
                self._directory.path(name), entry.spec, settings=self._settings, limits=self._limits, log=self._log
            )
        except (SealpoolError, OSError, ValueError, KeyError, RuntimeError, MemoryError) as error:
            failure = str(error) or type(error).__name__
            self._log.error("pool cannot be read", pool=name, reason=failure)
        finally:
            # Also when Lance panics over a torn file, which is no Exception: the pool must not stay LOADING.
            with self._guard:
                entry.pool, entry.failure = pool, "" if pool else failure


class _Countdown:
    """Calls `at_zero` when counted so often."""

    def __init__(self, start: int, at_zero: Callable[[], None]) -> None:
        self._left = start
        self._at_zero = at_zero
        self._guard = threading.Lock()

    def count(self) -> None:
        with self._guard:
            self._left -= 1
            done = self._left == 0
        if done:
            self._at_zero()


def _status(name: str, entry: _Entry) -> PoolStatus:
    failure = entry.failure or (entry.pool.failure if entry.pool else "")
    usable = PoolState.READY if entry.pool else PoolState.LOADING
    return PoolStatus(
        name=name,
        state=PoolState.FAILED if failure else usable,
        failure=failure,
        spec=entry.spec,
        created_at=entry.created_at,
        pool=entry.pool,
    )
