"""A pool's items ready to be searched: table, engine and direction, kept in step."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from index_server.engines import ENGINES, BuildRequest
from index_server.engines.milvus_server import MilvusServer
from index_server.engines.recall import RecallReport
from index_server.engines.selection import Choice, EngineRules, choose, wants_training
from index_server.geometry import DirectionSum, lengths_of, unit_vectors
from index_server.merging import Caller, MergeLimits, MergeObserver, SearchMerger
from index_server.ports import Addresses, Engine, Rows, Scores
from index_server.records import FloatMatrix
from index_server.searching import RescoredSearch, TracedSearch, without_own
from index_server.spec import Device, Metric, PoolSpec, VectorType
from index_server.store.engine_state import EngineState
from index_server.table.item_table import ItemTable
from sealpool.runtime.callers import NO_CALLER
from sealpool.runtime.tracing import NO_TRACING, Tracer
from sealpool.types import ItemId, Vectors

_COPY_BYTES: Final = 32 << 20
_STAGED_ROWS: Final = 512
_PREFIX_ENGINES: Final = frozenset({"flat", "ivf_flat"})
"""Their answer to a smaller k is the beginning of that to a larger one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexSettings:
    """How indexes are built and searched.

    Parameters
    ----------
    threads
        FAISS threads a call.
    seed
        Of training, and of the sample that recall is measured on.
    max_removed_share
        Above this share of masked rows the index is rebuilt without them.
    merging
        How searches that wait are merged.
    observer
        Is told what was merged.
    milvus
        Where the engine `milvus` has its collections, or None.
    tracer
        Makes spans of searches and commits.
    """

    rules: EngineRules
    threads: int
    seed: int
    max_removed_share: float
    merging: MergeLimits
    observer: MergeObserver
    milvus: MilvusServer | None = None
    tracer: Tracer = NO_TRACING


class Arrivals:
    """Items that are in the engine already, from row `first` on, and in no answer yet."""

    def __init__(self, *, first: int, direction: DirectionSum) -> None:
        self.first = first
        self.lengths: list[NDArray[np.float32]] = []
        self.direction = direction
        self.longest = 0.0

    @property
    def count(self) -> int:
        """Items so far."""
        return sum(map(len, self.lengths))


@dataclass(frozen=True, kw_only=True, slots=True)
class Due:
    """A rebuild that is due: of which engine, and whether that has to be trained."""

    choice: Choice
    train: bool


class PoolIndex:
    """The items of one pool in memory, searchable: see RescoredSearch for what an answer is.

    Threads: searches and look-ups by many at once; `append`, `stage`, `publish` and `remove` by one, while nobody
    reads.

    Parameters
    ----------
    report
        What recall was measured, None for an exact engine.
    directory
        Where the item table's columns may be paged out to; None keeps them in memory.
    """

    def __init__(
        self,
        spec: PoolSpec,
        settings: IndexSettings,
        *,
        choice: Choice,
        state: EngineState | None,
        engine: Engine,
        report: RecallReport | None,
        directory: Path | None,
    ) -> None:
        self.spec = spec
        self.settings = settings
        self.choice = choice
        self.state = state
        self.engine = engine
        self.report = report
        self.directory = directory
        self._direction = DirectionSum(spec.dimension, metric=spec.metric)
        self.searching = RescoredSearch(engine, spec.metric, spec.dimension)
        ratio = settings.merging.max_k_ratio if engine.name in _PREFIX_ENGINES else 1.0
        # Bound to no method of this object: a cycle of references would keep its memory until the collector comes.
        self._search = TracedSearch(self.searching, settings.tracer, pool=spec.name, engine=engine.name)
        self._merger = SearchMerger(
            self._search,
            replace(settings.merging, max_k_ratio=ratio),
            observer=settings.observer,
            here=settings.tracer.here,
        )
        self.table = ItemTable(directory=directory)

    @classmethod
    def load(
        cls,
        spec: PoolSpec,
        settings: IndexSettings,
        *,
        state: EngineState | None,
        addresses: Addresses,
        items: Iterable[tuple[pa.Array, FloatMatrix]],
        directory: Path | None,
        progress: Callable[[float], None],
    ) -> "PoolIndex":
        """Return an index of `items`, ids and vectors in parts, which come in the pool's order and have `addresses`.

        Without a `state` it is exact at first, even where the pool wants an engine that has to be trained; `due` says
        so. `progress` is told the share that is in.
        """
        trained_on = state.trained_on if state else 0
        choice = choose(spec, items=len(addresses), trained_on=trained_on, rules=settings.rules)
        if not choice.kind.exact and (
            state is None
            or state.engine != choice.kind.name
            or wants_training(choice, spec, items=len(addresses), trained_on=trained_on)
        ):
            # On the CPU: what is to be compressed for a GPU need not fit there whole.
            reason = f"exact until {choice.kind.name} is built"
            choice = replace(choice, kind=ENGINES["flat"], device=Device.CPU, reason=reason)
        engine = build_engine(
            spec, settings, choice, items=len(addresses), state=state, sample=_nothing, directory=directory
        )
        report = None
        with ExitStack() as unless_loaded:
            unless_loaded.callback(engine.close)
            if state is not None and not choice.kind.exact:
                engine.breadth = state.breadth
                report = RecallReport(
                    recall=state.recall, k=state.recall_k, queries=state.recall_queries, breadth=state.breadth, met=True
                )
            index = cls(spec, settings, choice=choice, state=state, engine=engine, report=report, directory=directory)
            unless_loaded.callback(index.table.close)
            engine.reserve(len(addresses))
            start = 0
            for ids, vectors in items:
                engine.make_room(len(ids))
                index.append(ids, vectors, addresses[start : start + len(ids)])
                start += len(ids)
                progress(start / len(addresses))
            if start != len(addresses):
                raise ValueError(f"{start} items came, not {len(addresses)}")
            unless_loaded.pop_all()
        return index

    def __len__(self) -> int:
        return len(self.table)

    @property
    def memory_bytes(self) -> int:
        """Memory of the engine, and of the table of items without what can be paged out."""
        return self.engine.memory_bytes + self.table.nbytes

    @property
    def recall(self) -> float:
        """Share of the true neighbours that the engine finds, measured on a sample; 1 for an exact one."""
        return 1.0 if self.report is None else self.report.recall

    def append(self, ids: Sequence[ItemId] | pa.Array, vectors: FloatMatrix, addresses: Addresses) -> None:
        """Take in items whose ids the index does not have, with vectors (n, d) as stored."""
        arrivals = self.arrivals()
        self.stage(arrivals, vectors)
        self.publish(arrivals, ids, addresses)

    def arrivals(self) -> Arrivals:
        """Begin to take in items that are in no answer before they are published."""
        direction = DirectionSum(self.spec.dimension, metric=self.spec.metric)
        return Arrivals(first=self.engine.size, direction=direction)

    def stage(self, arrivals: Arrivals, vectors: FloatMatrix) -> None:
        """Put some more vectors (n, d), as stored, into the engine."""
        # In pieces that stay in the processor's cache from one step to the next, and in one piece of memory.
        room = np.empty((min(len(vectors), _STAGED_ROWS), self.spec.dimension), np.float32)
        for start in range(0, len(vectors), _STAGED_ROWS):
            part = vectors[start : start + _STAGED_ROWS]
            lengths = lengths_of(part)
            compared = self._compared(part, lengths, out=room[: len(part)])
            self.engine.add(np.arange(self.engine.size, self.engine.size + len(part)), compared)
            arrivals.lengths.append(lengths.astype(np.float32))
            arrivals.direction.add(compared)
            arrivals.longest = max(arrivals.longest, float(lengths.max(initial=0)))

    def publish(self, arrivals: Arrivals, ids: Sequence[ItemId] | pa.Array, addresses: Addresses) -> None:
        """Let what was staged since `arrivals` be found, as the items `ids`, which the index does not have."""
        if not len(ids):
            return
        self.table.skip_to(arrivals.first)  # what was staged before, and never published
        self.engine.reveal(self.table.append(ids, addresses, np.concatenate(arrivals.lengths)))
        self._direction.merge(arrivals.direction)
        self.searching.longest = max(self.searching.longest, arrivals.longest)

    def adopt(self, other: "PoolIndex", rows: Rows) -> Rows:
        """Take in the items at `rows` of another index of this pool; return the rows that they have here."""
        added = []
        for part in blocks(rows, _COPY_BYTES // (4 * self.spec.dimension)):
            vectors = other.engine.vectors(part)
            self.engine.add(np.arange(self.engine.size, self.engine.size + len(part)), vectors)
            self._direction.add(vectors)
            mine = self.table.extend_from(other.table, part)
            self.engine.reveal(mine)
            added.append(mine)
        self.searching.longest = max(self.searching.longest, other.searching.longest)
        return np.concatenate([np.empty(0, np.int64), *added])

    def remove(self, rows: Rows) -> None:
        """Let the items at `rows` go."""
        for part in blocks(rows, _COPY_BYTES // (4 * self.spec.dimension)):
            self._direction.remove(self.engine.vectors(part))
        self.engine.remove(rows)
        self.table.retire(rows)

    def search(
        self, queries: Vectors, k: int, *, excluded: Rows | None = None, caller: Caller = NO_CALLER
    ) -> tuple[Rows, Scores]:
        """Return the k nearest rows of each query and their scores, each (q, k); rows are −1 where there are fewer.

        Parameters
        ----------
        queries
            (q, d) as given by the caller.
        excluded
            Rows that are in no answer.
        """
        return self._nearest(self._compared(queries, lengths_of(queries)), k, excluded, caller)

    def search_rows(
        self, rows: Rows, k: int, *, excluded: Rows | None = None, caller: Caller = NO_CALLER
    ) -> tuple[Rows, Scores]:
        """Return what `search` does for the items at `rows` as queries, each left out of its own answer."""
        if not len(rows):
            return np.empty((0, k), np.int64), np.empty((0, k), np.float32)
        found, scores = self._nearest(self.engine.vectors(rows), k + 1, excluded, caller)
        return without_own(found, scores, rows)

    def stored_vectors(self, rows: Rows) -> FloatMatrix:
        """Return the vectors of `rows` as the pool keeps them: (n, d) float32 or float16.

        From memory. Under cosine they are unit vectors times length, so they may differ from the stored ones in the
        last places.
        """
        vectors = self.engine.vectors(rows)
        if self.spec.metric is Metric.COSINE:
            vectors = np.multiply(vectors, self.table.lengths_at(rows)[:, None], out=vectors)
        return vectors.astype(self.spec.vector_type.dtype, copy=False)

    def mean_direction(self, *, without: Rows) -> NDArray[np.float32]:
        """Return the mean unit vector of the items, less those at `without`: (d,) float32."""
        left_out = DirectionSum(self.spec.dimension, metric=self.spec.metric)
        for part in blocks(without, _COPY_BYTES // (4 * self.spec.dimension)):
            left_out.add(self.engine.vectors(part))
        return self._direction.mean(len(self.table) - len(without), without=left_out)

    def due(self) -> Due | None:
        """Return the rebuild that is due, or None if this index is well.

        One is when the pool has outgrown its engine, when training is due, or when too many rows are masked.
        """
        trained_on = self.state.trained_on if self.state else 0
        choice = choose(self.spec, items=len(self), trained_on=trained_on, rules=self.settings.rules)
        train = wants_training(choice, self.spec, items=len(self), trained_on=trained_on)
        masked = self.engine.removed > self.settings.max_removed_share * max(self.engine.size, 1024)
        same = choice.kind is self.choice.kind and choice.device is self.choice.device
        if same and not train and not masked:
            self.choice = choice
            return None
        return Due(choice=choice, train=train)

    def close(self) -> None:
        """Free device memory and disk. `stored_vectors` and `table` may still be read after it."""
        self.engine.close()
        self.table.close()

    def _nearest(self, compared: Vectors, k: int, excluded: Rows | None, caller: Caller) -> tuple[Rows, Scores]:
        if excluded is None or not len(excluded):
            with self.settings.tracer.span("search", pool=self.spec.name, queries=len(compared), k=k):
                return self._merger.submit(compared, k, caller=caller)
        return self._search(compared, k, excluded=excluded)

    def _compared(self, vectors: FloatMatrix, lengths: NDArray[np.float64], *, out: Vectors | None = None) -> Vectors:
        if self.spec.metric is not Metric.COSINE:
            return vectors.astype(np.float32, copy=False)
        units = unit_vectors(vectors, lengths, out=out)
        if self.spec.vector_type is VectorType.FLOAT16:
            return units.astype(np.float16).astype(np.float32)  # what every engine can keep to the last bit
        return units


def build_engine(
    spec: PoolSpec,
    settings: IndexSettings,
    choice: Choice,
    *,
    items: int,
    state: EngineState | None,
    sample: Callable[[int], Vectors],
    directory: Path | None,
) -> Engine:
    """Return an empty engine as `choice` says, with what was trained before where that is `state`."""
    saved = state.content if state and state.engine == choice.kind.name else None
    request = BuildRequest(
        dimension=spec.dimension,
        metric=spec.metric,
        options=spec.options,
        device=choice.device,
        items=items,
        sample=sample,
        saved=saved,
        threads=settings.threads,
        seed=settings.seed,
        vector_type=spec.vector_type,
        scratch_dir=directory,
        gpus=settings.rules.gpus,
        gpu_layout=settings.rules.gpu_layout,
        milvus=settings.milvus,
    )
    return choice.kind.build(request)


def blocks(positions: Rows, size: int) -> Iterator[NDArray[np.int64]]:
    """Cut `positions` into parts of `size`, or of one."""
    for start in range(0, len(positions), max(1, size)):
        yield positions[start : start + max(1, size)]


def _nothing(count: int) -> Vectors:
    raise AssertionError(f"training on {count} vectors of an index that has none yet")
