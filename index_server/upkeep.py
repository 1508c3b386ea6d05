"""What keeps a pool fast, done in the background: rebuilding its index, compacting its store."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from index_server.engines.recall import tune
from index_server.index import Due
from index_server.pool_state import PoolState
from index_server.ports import OutcomeUnknown, Rows
from index_server.rebuild import Rebuild, RecallMissed, exact_instead, measured_state
from index_server.store.engine_state import write_engine_state
from sealpool.errors import SealpoolError, Unavailable

_CAUGHT_UP: Final = 4096
"""Items that may be left to copy when writers are held up for the exchange."""
_MEASURE_GROWTH: Final = 2
_RETRY_GROWTH: Final = 2
"""A refused engine is tried again once the pool has grown so many times."""
_UNSETTLED_S: Final = 1.0
"""An engine that lags behind is looked at again after so long. Other pools have their turn meanwhile."""
_AWAY_S: Final = 15.0
"""When what an engine lies in was away, it is looked for again after so long."""
_PURGE_WAIT_S: Final = 30.0
_PURGE_PAUSE_S: Final = 0.05
_PURGED_FIRST_S: Final = 1.0
"""When a pool is looked after again that was being purged."""
_GRAPH_BATCH: Final = 128
_GRAPH_TURN_S: Final = 5.0
"""How long a graph is built before other pools are looked after."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    engine: str
    items: int
    reason: str


class PoolUpkeep:
    """The upkeep of one pool. One thread at a time; searches and changes of items go on meanwhile.

    Parameters
    ----------
    busy
        Whether uploads are under way: a rebuild waits for their end, but no longer than `patience_s`, since it would
        have to be done again.
    compaction_bytes
        About how much one step of compaction rewrites.
    """

    def __init__(self, state: PoolState, *, busy: Callable[[], bool], patience_s: float, compaction_bytes: int) -> None:
        self._state = state
        self._busy = busy
        self._patience_s = patience_s
        self._compaction_bytes = compaction_bytes
        self._due_since: float | None = None
        self._refusal: _Refusal | None = None
        self._rebuild: Rebuild | None = None
        """One that has begun and has not ended."""
        self._turn = threading.Lock()
        self.building = ""
        """The engine that is being built, or is to be once uploads have ended; "" for none."""

    def run(self) -> float | None:
        """Do what is due; return the seconds after which to come again, None where only a change can call for it.

        An error is logged, and what failed is tried again after the next change: no answer depends on it. If only
        something was away, it is tried again soon. A pool that is being purged is left for later: other pools wait.
        """
        if not self._turn.acquire(blocking=False):
            return _PURGED_FIRST_S
        try:
            return self._run()
        finally:
            self._turn.release()

    def _run(self) -> float | None:
        try:
            wait_s = self._look_after_index()
            self._compact()
            if wait_s is None:
                wait_s = self._build_graph()
        except (SealpoolError, OSError, RuntimeError, ValueError, MemoryError) as error:
            if not self._state.closing.is_set():
                reason = str(error) or type(error).__name__
                self._state.log.warning("upkeep put off", pool=self._state.spec.name, reason=reason)
            return _AWAY_S if isinstance(error, Unavailable) and not self._state.closing.is_set() else None
        else:
            return wait_s

    def close(self) -> None:
        """Let go of a rebuild that has begun, once the pool is being closed. A step under way does so at its end."""
        if self._turn.acquire(blocking=False):
            try:
                self._abandon()
            finally:
                self._turn.release()

    def _look_after_index(self) -> float | None:
        try:
            wait_s = self._rebuild_if_due()
            return self._measure_if_due() if wait_s is None else wait_s
        except Unavailable:
            if self._state.closing.is_set():
                raise
            return _AWAY_S

    def _rebuild_if_due(self) -> float | None:
        state = self._state
        if self._rebuild is not None:
            return self._go_on(self._rebuild)
        with state.reading():
            due = self._due()
        if due is None:
            self._due_since, self.building = None, ""
            return None
        self.building = due.choice.kind.name
        if self._due_since is None:
            self._due_since = time.monotonic()
        waited_s = time.monotonic() - self._due_since
        if self._busy() and waited_s < self._patience_s:
            return min(1.0, self._patience_s - waited_s)
        return self._begin(due)

    def _measure_if_due(self) -> float | None:
        """Measure an approximate engine again once its pool has doubled; rebuild one that misses the floor."""
        state, index = self._state, self._state.index
        if index.state is None or index.report is None or len(index) < _MEASURE_GROWTH * index.state.measured_on:
            return None
        if not index.engine.settled():
            return _UNSETTLED_S
        spec, seed = index.spec, index.settings.seed
        report = tune(index.engine, spec.min_recall, metric=spec.metric, seed=seed, reading=state.reading)
        if report.met:
            index.report = report
            index.state = measured_state(index, report, trained_on=index.state.trained_on)
            write_engine_state(state.directory / "engine.state", index.state)
            return None
        state.log.warning("recall fell", pool=spec.name, engine=index.engine.name, recall=round(report.recall, 4))
        trains = index.choice.kind.items_to_train(len(index), spec.options) > 0
        return self._begin(Due(choice=index.choice, train=trains))

    def _due(self) -> Due | None:
        index = self._state.index
        due = index.due()
        refusal = self._refusal
        if due is None or refusal is None or due.choice.kind.name != refusal.engine:
            return due
        if len(index) >= _RETRY_GROWTH * refusal.items:
            self._refusal = None
            return due
        instead = exact_instead(due, refusal.reason)
        masked = index.engine.removed > index.settings.max_removed_share * max(index.engine.size, 1024)
        index.choice = instead.choice if index.choice.kind.exact else index.choice
        return None if index.choice.kind.exact and not masked else instead

    def _begin(self, due: Due) -> float | None:
        state = self._state
        self.building = due.choice.kind.name
        self._rebuild = Rebuild(state.index, due, state.reading, ending=state.closing.is_set)
        return self._go_on(self._rebuild)

    def _go_on(self, rebuild: Rebuild) -> float | None:
        """Go on with a rebuild; return after how long again, None where it has ended. What is away is waited for."""
        state = self._state
        with ExitStack() as unless_it_goes_on:
            unless_it_goes_on.callback(self._abandon)
            try:
                if not rebuild.prepare():
                    unless_it_goes_on.pop_all()
                    return _UNSETTLED_S
                while rebuild.catch_up() > _CAUGHT_UP:
                    pass
                with state.writer:
                    self._exchange(rebuild)
                unless_it_goes_on.pop_all()
            except Unavailable:
                if not state.closing.is_set():
                    unless_it_goes_on.pop_all()
                raise
            except RecallMissed as missed:
                self._refuse(rebuild.due, missed)
        if self._rebuild is None:  # it was refused: an exact engine may be due instead
            return self._rebuild_if_due()
        self._rebuild, self.building, self._due_since = None, "", None
        return None

    def _abandon(self) -> None:
        rebuild, self._rebuild, self.building = self._rebuild, None, ""
        if rebuild is not None:
            rebuild.abandon()

    def _refuse(self, due: Due, missed: RecallMissed) -> None:
        state, engine = self._state, due.choice.kind.name
        self._refusal = _Refusal(engine, len(state.index), f"exact: {engine} was refused, {missed}")
        (state.directory / "engine.state").unlink(missing_ok=True)  # lest a restart believe an earlier measurement
        state.log.warning("engine refused", pool=state.spec.name, engine=engine, reason=str(missed))

    def _exchange(self, rebuild: Rebuild) -> None:
        state = self._state
        state.check_open()
        with state.gate.write():
            other, new_rows = rebuild.finish()
            if other.state is not None and other.state is not state.index.state:
                write_engine_state(state.directory / "engine.state", other.state)
            with state.view.write():
                before, state.index = state.index, other
                self._renumber(new_rows)
        before.close()
        state.log.info(
            "index rebuilt",
            pool=state.spec.name,
            engine=other.engine.name,
            items=len(other),
            recall=round(other.recall, 4),
            reason=other.choice.reason,
        )

    def _renumber(self, new_rows: Rows) -> None:
        self._state.campaigns.renumber(new_rows)
        if self._state.graph is not None:
            self._state.graph.renumber(self._state.index, new_rows)

    def _build_graph(self) -> float | None:
        """Find some of the neighbours that a full graph lacks; between two steps others have their turn."""
        state = self._state
        if state.graph is None:
            return None
        ends = time.monotonic() + _GRAPH_TURN_S
        while time.monotonic() < ends:
            if state.closing.is_set() or self._busy():
                return 1.0
            with state.gate.read(), state.reading():
                if not state.graph.build(_GRAPH_BATCH):
                    return None
        return 0.0

    def purge(self) -> None:
        """Return once nothing of deleted items is left in the pool's files.

        Raises
        ------
        ResourceExhausted
            The disk is full.
        Unavailable
            For a while already the index has been being rebuilt, or a read that began before has needed the old files;
            or the pool is being closed.
        """
        name = self._state.spec.name
        if not self._turn.acquire(timeout=_PURGE_WAIT_S):
            raise Unavailable(f"pool {name!r}: its index is being rebuilt, or another purge is under way")
        try:
            while self._rewrite(self._state.store.prepare_purge) is not None:
                if self._state.closing.is_set():
                    raise Unavailable(f"pool {name!r} is being closed")
        finally:
            if self._state.closing.is_set():  # `close` may have found this turn taken
                self._abandon()
            self._turn.release()
        self._collect(before=self._state.store.version)

    def _collect(self, *, before: int) -> None:
        # Not in turn, so that upkeep goes on: what changes from here on has nothing of the deleted items.
        name = self._state.spec.name
        ends = time.monotonic() + _PURGE_WAIT_S
        while not self._collected(before):
            if time.monotonic() > ends:
                raise Unavailable(f"pool {name!r}: a read that began before has not ended")
            if self._state.closing.wait(_PURGE_PAUSE_S):
                raise Unavailable(f"pool {name!r} is being closed")

    def _collected(self, before: int) -> bool:
        with self._state.writer:
            self._state.check_open()
            return self._state.store.collect(before=before)

    def _compact(self) -> None:
        state = self._state
        while not state.closing.is_set() and state.store.wants_compaction():
            if not self._rewrite(state.store.prepare_compaction):
                return

    def _rewrite(self, prepare: Callable[[int], object | None]) -> bool | None:
        """Do one step; False where items changed meanwhile, None where nothing is to be rewritten."""
        state = self._state
        with state.writer:
            state.check_open()
            state.discard_failed()
        rewrite = prepare(self._compaction_bytes)
        if rewrite is None:
            return None
        with state.writer:
            state.check_open()
            state.discard_failed()
            return self._commit_compaction(rewrite)

    def _commit_compaction(self, rewrite: object) -> bool:
        state = self._state
        with state.failing_on(OutcomeUnknown, "compaction"):
            if not state.store.commit_compaction(rewrite):
                return False
        with state.failing_on(BaseException, "compaction"):
            snapshot = state.store.snapshot()
            addresses = snapshot.addresses()
            with state.gate.write(), state.view.write():
                state.index.table.move(addresses)
                if self._rebuild is not None:
                    self._rebuild.move()
                state.snapshot = snapshot
        return True
