"""Another index of a pool's items, built while the first one serves."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Final

import numpy as np

from index_server.engines import ENGINES
from index_server.engines.recall import RecallReport, tune
from index_server.index import Due, PoolIndex, blocks, build_engine
from index_server.ports import Engine, Rows
from index_server.store.engine_state import EngineState
from sealpool.errors import Unavailable
from sealpool.types import Vectors

_COPIED_ROWS: Final = 16_384

Reading = Callable[[], AbstractContextManager[None]]
"""Holds the index as it is, for as long as the context is entered."""


class RecallMissed(RuntimeError):
    """An approximate engine does not find enough of the true neighbours, however wide it searches."""

    def __init__(self, report: RecallReport, floor: float) -> None:
        self.report = report
        super().__init__(f"recall {report.recall:.3f} at k = {report.k} is below the pool's floor of {floor:g}")


class Rebuild:
    """An index in the making: trained on a sample, filled from the one that serves, and caught up with it.

    `prepare` and `catch_up` take the lock of `reading` for moments; changes go on between them. Then, while nothing
    changes, `finish` takes in the rest, and the new index stands for the old one, with other rows. Where compaction
    moved items since the first `prepare`, `move` is to be called.
    """

    def __init__(self, index: PoolIndex, due: Due, reading: Reading, *, ending: Callable[[], bool]) -> None:
        self._ending = ending
        self._index = index
        self.due = due
        self._reading = reading
        self._new_rows: Rows = np.empty(0, np.int64)
        """Where old rows lie in the new index, −1 for nowhere."""
        self._other: PoolIndex | None = None
        self._filled = False

    def prepare(self) -> bool:
        """Train the engine and take in what is there; False where that engine lags behind: call again in a while.

        Raises
        ------
        RecallMissed
            The engine is not to be used.
        Unavailable
            The pool is being closed; or the system in which the engine lies is away, and this may be called again.
        """
        self._check_not_ending()
        if self._other is None:
            self._other = self._empty()
        engine = self._other.engine
        if not self._filled:
            if not engine.settled():  # one that cannot be reached is found out before anything is copied
                return False
            self.catch_up()
            self._filled = True
        if not self.due.choice.kind.exact:
            if not engine.settled():
                return False
            self._measure(engine)
        return True

    def catch_up(self) -> int:
        """Take in what has come since; return how many items that were."""
        taken = 0
        with self._reading():
            limit = self._index.table.rows
        while len(self._new_rows) < limit:
            self._check_not_ending()
            if self._other is not None:
                self._other.engine.make_room(_COPIED_ROWS)
            with self._reading():
                taken += self._take(min(limit, len(self._new_rows) + _COPIED_ROWS))
        return taken

    def move(self) -> None:
        """Take the addresses that the items have by now. To be called while nothing changes."""
        if self._other is not None:
            self._other.table.move(self._index.table.addresses_at(np.flatnonzero(self._new_rows >= 0)))

    def finish(self) -> tuple[PoolIndex, Rows]:
        """Return the new index, and where each old row lies in it. To be called while nothing changes."""
        if self._other is None:
            raise ValueError("prepare comes first")
        self._take(self._index.table.rows)
        there = np.flatnonzero(self._new_rows >= 0)
        gone = there[~self._index.table.is_live(there)]
        self._other.remove(self._new_rows[gone])
        self._new_rows[gone] = -1
        return self._other, self._new_rows

    def abandon(self) -> None:
        """Free what was built."""
        if self._other is not None:
            self._other.close()

    def _check_not_ending(self) -> None:
        if self._ending():
            raise Unavailable("the pool is being closed", field="pool")

    def _empty(self) -> PoolIndex:
        index, state = self._index, None if self.due.train else self._index.state
        engine = build_engine(
            index.spec,
            index.settings,
            self.due.choice,
            items=len(index),
            state=state,
            sample=self._sample,
            directory=index.directory,
        )
        return PoolIndex(
            index.spec,
            index.settings,
            choice=self.due.choice,
            state=state,
            engine=engine,
            report=None,
            directory=index.directory,
        )

    def _sample(self, count: int) -> Vectors:
        """Return the vectors of `count` items spread evenly over the pool's order, or of all if there are fewer."""
        with self._reading():
            live = self._index.table.live_rows()
        if len(live) > count:
            live = live[np.linspace(0, len(live) - 1, count).astype(np.int64)]
        parts = []
        for part in blocks(live, _COPIED_ROWS):
            with self._reading():
                parts.append(self._index.engine.vectors(part))
        return np.concatenate(parts)

    def _take(self, stop: int) -> int:
        """Take in the live ones of the old rows up to `stop`."""
        if self._other is None:
            raise ValueError("prepare comes first")
        start = len(self._new_rows)
        grown = np.full(stop, -1, np.int64)
        grown[:start] = self._new_rows
        old = start + np.flatnonzero(self._index.table.is_live(np.arange(start, stop)))
        grown[old] = self._other.adopt(self._index, old)
        self._new_rows = grown
        return len(old)

    def _measure(self, engine: Engine) -> None:
        if self._other is None:
            raise ValueError("prepare comes first")
        spec = self._index.spec
        report = tune(engine, spec.min_recall, metric=spec.metric, seed=self._index.settings.seed)
        if not report.met:
            raise RecallMissed(report, spec.min_recall)
        self._other.report = report
        before = None if self.due.train else self._index.state
        trained_on = before.trained_on if before else len(self._other)
        self._other.state = measured_state(self._other, report, trained_on=trained_on)


def measured_state(index: PoolIndex, report: RecallReport, *, trained_on: int) -> EngineState:
    """Return what is to be kept of an engine whose recall was measured."""
    return EngineState(
        engine=index.engine.name,
        trained_on=trained_on,
        content=index.engine.save() or b"",
        breadth=report.breadth,
        recall=report.recall,
        recall_k=report.k,
        recall_queries=report.queries,
        measured_on=len(index),
    )


def exact_instead(due: Due, reason: str) -> Due:
    """Return the rebuild that puts an exact engine in the place of one that was refused."""
    return Due(choice=replace(due.choice, kind=ENGINES["flat"], reason=reason), train=False)
