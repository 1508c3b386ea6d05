"""All pools of this server: made, loaded, found and deleted."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from index_server.aliases import Aliases
from index_server.background import UpkeepThread
from index_server.engines.selection import check_engine
from index_server.index import IndexSettings
from index_server.limits import Limits
from index_server.places import Places, allowed_place
from index_server.pool import Pool, UpkeepSettings
from index_server.spec import PoolSpec
from index_server.store.directory import PoolDirectory
from index_server.store.snapshots import SnapshotInfo, read_snapshot_spec, restore_snapshot
from index_server.store.watermarks import Watermarks
from sealpool.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    SealpoolError,
    Unavailable,
)
from sealpool.runtime.logs import Logger
from sealpool.validation import check_name


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
    loaded_share: float = 0.0
    under_way: str = "read from disk"
    """What is being done to it as long as it has neither a pool nor a failure."""

    @property
    def in_between(self) -> bool:
        return self.pool is None and not self.failure


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolStatus:
    """A pool as GetPool shows it. `spec` is None where pool.json cannot be read, `pool` unless it is ready."""

    name: str
    state: PoolState
    failure: str
    spec: PoolSpec | None
    created_at: datetime | None
    pool: Pool | None
    loaded_share: float
    under_way: str
    aliases: list[str]


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
        upkeep: UpkeepSettings,
        limits: Limits,
        watermarks: Watermarks,
        places: Places,
        loading_threads: int,
        clock: Callable[[], datetime],
        log: Logger,
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._upkeep = upkeep
        self._limits = limits
        self._watermarks = watermarks
        self._places = places
        self._clock = clock
        self._log = log
        self._guard = threading.Lock()
        self._aliases = Aliases(directory.root.parent / "aliases.json")
        self._background = UpkeepThread(log)
        self._entries: dict[str, _Entry] = {}
        self._loader = ThreadPoolExecutor(loading_threads, thread_name_prefix="load")

    def start(self, on_loaded: Callable[[], None]) -> None:
        """Read all pools in the background; call `on_loaded` once each is ready or failed."""
        self._background.start()
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
        if spec.source is not None:
            roots = self._places.source_roots
            uri = allowed_place(spec.source.uri, roots, field="spec.source.uri", setting="source_roots")
            spec = replace(spec, source=replace(spec.source, uri=uri))
        return self._make(spec, lambda path: Pool.create(path, spec))

    def _make(self, spec: PoolSpec, fill: Callable[[Path], object]) -> PoolStatus:
        spec.check()
        check_engine(spec, self._settings.rules)
        created_at = self._clock()
        with self._guard:
            if spec.name in self._entries or self._aliases.pool_of(spec.name):
                raise AlreadyExists("pool", spec.name)
            if len(self._entries) >= self._limits.max_pools:
                raise ResourceExhausted("one more pool", limit=self._limits.max_pools, setting="max_pools")
            self._entries[spec.name] = _Entry(spec, created_at, under_way="made")
        made = False
        try:
            self._directory.create(spec, created_at, fill)
            made = True
        finally:
            if not made:
                with self._guard:
                    del self._entries[spec.name]
        self._load(spec.name)
        return self.status(spec.name)

    def create_snapshot(self, name: str, uri: str) -> tuple[SnapshotInfo, int]:
        """Write a pool elsewhere; return what was written, and the items.

        Raises
        ------
        InvalidArgument
            The uri is not below one of the snapshot roots, or `name` can name no pool.
        NotFound, FailedPrecondition, AlreadyExists, ResourceExhausted, Unavailable
            No such pool; a read-only one; something at the uri; the disk there; the object store is away.
        """
        pool = self.get(name)
        return pool.write_snapshot(
            allowed_place(uri, self._places.snapshot_roots, field="uri", setting="snapshot_roots")
        )

    def restore_snapshot(self, uri: str, name: str) -> PoolStatus:
        """Make a pool from a snapshot, under `name`, or for "" the name that it had.

        Raises
        ------
        InvalidArgument
            The uri is not below one of the snapshot roots, or the name is none.
        NotFound, FailedPrecondition
            There is no snapshot, or a damaged one.
        AlreadyExists, ResourceExhausted, Unavailable
            As `create`; or the object store is away.
        """
        place = allowed_place(uri, self._places.snapshot_roots, field="uri", setting="snapshot_roots")
        spec = read_snapshot_spec(place)
        if name:
            spec = replace(spec, name=check_name("name", name))
        return self._make(spec, lambda path: restore_snapshot(place, path))

    def get(self, name: str) -> Pool:
        """Return a pool that can be used, by its name or an alias.

        Raises
        ------
        InvalidArgument
            That can name no pool.
        NotFound
            There is no such pool.
        Unavailable
            It is being made, read from disk or deleted.
        FailedPrecondition
            It could not be read.
        """
        status = self.status(name, field="pool")
        if status.state is PoolState.LOADING:
            raise Unavailable(f"pool {name!r} is being {status.under_way}", field="pool")
        if status.pool is None or status.state is PoolState.FAILED:
            raise FailedPrecondition(f"pool {name!r} cannot be used: {status.failure}", field="pool")
        return status.pool

    def status(self, name: str, *, field: str = "name") -> PoolStatus:
        """Return how a pool is, by its name or an alias.

        Raises
        ------
        InvalidArgument, NotFound
            That can name no pool; it names none.
        """
        check_name(field, name)
        with self._guard:
            name = self._aliases.pool_of(name) or name
            entry = self._entries.get(name)
            if entry is None:
                raise NotFound("pool", name, field=field)
            return _status(name, entry, self._aliases.of(name))

    def statuses(self) -> list[PoolStatus]:
        """Return how all pools are, by name."""
        with self._guard:
            return [_status(name, entry, self._aliases.of(name)) for name, entry in sorted(self._entries.items())]

    def set_alias(self, alias: str, name: str) -> str:
        """Let `alias` stand for a pool; return the one that it stood for, "" for none.

        Raises
        ------
        NotFound
            There is no such pool.
        AlreadyExists
            A pool has this name.
        InvalidArgument
            The alias or `name` is no name, or `name` is an alias.
        Unavailable
            It is being made, read from disk or deleted.
        ResourceExhausted
            The disk is full.
        """
        check_name("alias", alias)
        check_name("pool", name)
        with self._guard:
            if alias in self._entries:
                raise AlreadyExists("pool", alias)
            if self._aliases.pool_of(name):
                raise InvalidArgument("pool", f"{name!r} is an alias itself")
            entry = self._entries.get(name)
            if entry is None:
                raise NotFound("pool", name)
            if entry.in_between:
                raise Unavailable(f"pool {name!r} is being {entry.under_way}", field="pool")
            return self._aliases.set(alias, name)

    def delete_alias(self, alias: str) -> None:
        """Forget an alias; raise NotFound if there is none, InvalidArgument if it can name none."""
        check_name("alias", alias)
        with self._guard:
            if not self._aliases.pool_of(alias):
                raise NotFound("alias", alias)
            self._aliases.delete(alias)

    def delete(self, name: str) -> tuple[int, int]:
        """Delete a pool, whether it can be read or not; return its last version and its items, 0 where unknown.

        Raises
        ------
        InvalidArgument, NotFound
            That can name no pool; it names none.
        FailedPrecondition
            An alias stands for it, or the name is an alias.
        Unavailable
            It is being made, read from disk or deleted.
        """
        check_name("name", name)
        with self._guard:
            entry = self._entries.get(name)
            if self._aliases.pool_of(name):
                raise FailedPrecondition(f"{name!r} is an alias: delete the pool by its own name", field="name")
            if entry is None:
                raise NotFound("pool", name, field="name")
            if self._aliases.of(name):
                raise FailedPrecondition(
                    f"alias {self._aliases.of(name)[0]!r} stands for pool {name!r}: switch or delete it first",
                    field="name",
                )
            if entry.in_between:
                raise Unavailable(f"pool {name!r} is being {entry.under_way}", field="name")
            # There for all others until it is gone, so that nobody takes the name meanwhile.
            self._entries[name] = _Entry(entry.spec, entry.created_at, under_way="deleted")
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
                status.pool.begin_closing()
        self._background.stop()
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
                self._directory.path(name),
                entry.spec,
                settings=self._settings,
                upkeep=self._upkeep,
                limits=self._limits,
                watermarks=self._watermarks,
                log=self._log,
                on_change=self._background.wake,
                progress=lambda share: setattr(entry, "loaded_share", share),
            )
        except (SealpoolError, OSError, ValueError, KeyError, RuntimeError, MemoryError) as error:
            failure = str(error) or type(error).__name__
            self._log.error("pool cannot be read", pool=name, reason=failure)
        finally:
            # Also when Lance panics over a torn file, which is no Exception: the pool must not stay LOADING.
            with self._guard:
                entry.pool, entry.failure = pool, "" if pool else failure
        if pool:
            self._background.wake(pool)


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


def _status(name: str, entry: _Entry, aliases: list[str]) -> PoolStatus:
    failure = entry.failure or (entry.pool.failure if entry.pool else "")
    usable = PoolState.READY if entry.pool else PoolState.LOADING
    return PoolStatus(
        name=name,
        state=PoolState.FAILED if failure else usable,
        failure=failure,
        spec=entry.spec,
        created_at=entry.created_at,
        pool=entry.pool,
        loaded_share=1.0 if entry.pool else entry.loaded_share,
        under_way=entry.under_way,
        aliases=aliases,
    )
