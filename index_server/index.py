"""A pool's items ready to be searched: table, engine and direction, kept in step."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index_server.engines import ENGINES, BuildRequest
from index_server.engines.faiss_gpu import MAX_NEIGHBORS as MAX_GPU_NEIGHBORS
from index_server.engines.selection import Choice, EngineRules, choose, wants_training
from index_server.geometry import DirectionSum, lengths_of, pair_scores, unit_vectors
from index_server.items import ItemTable
from index_server.ports import Addresses, Engine, Rows
from index_server.records import FloatMatrix, Records
from index_server.spec import Device, Metric, PoolSpec
from index_server.store.engine_state import EngineState
from sealpool.types import ItemId, Vectors

_SPARE: Final = 16
"""Neighbours fetched beyond k, so that ties at the k-th place are seen."""
_MAX_FETCH: Final = 16_384
_GATHER_BYTES: Final = 32 << 20
_COPY_BYTES: Final = 32 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexSettings:
    """How indexes are built.

    Parameters
    ----------
    threads
        FAISS threads a call.
    seed
        Of training.
    max_removed_share
        Above this share of masked rows the index is rebuilt without them.
    """

    rules: EngineRules
    threads: int
    seed: int
    max_removed_share: float


class Arrivals:
    """Items that are in the engine already, from row `first` on, and in no answer yet."""

    def __init__(self, *, first: int, dimension: int) -> None:
        self.first = first
        self.lengths: list[NDArray[np.float32]] = []
        self.direction = DirectionSum(dimension)
        self.longest = 0.0


class PoolIndex:
    """The items of one pool in memory, searchable.

    Searches are exact in their last step: the engine brings somewhat more rows than asked for, their scores are
    computed anew in float32, and rows are ordered by score and then by row, which is the pool's order. With an exact
    engine the answer to a query so depends on the pool and the query alone: not on what else is in the batch, and not
    on FAISS's rounding. That holds while no more than about 15·k items lie within rounding of the k-th.

    Threads: searches and look-ups by many at once; `append`, `stage`, `publish` and `remove` by one, while nobody
    reads; `maintained` by one, while others read.
    """

    def __init__(
        self, spec: PoolSpec, settings: IndexSettings, *, choice: Choice, state: EngineState | None, engine: Engine
    ) -> None:
        self._spec = spec
        self._settings = settings
        self._state = state
        self._engine = engine
        self._direction = DirectionSum(spec.dimension)
        self._longest = 0.0
        self.choice = choice
        self.table = ItemTable()

    @classmethod
    def load(
        cls,
        spec: PoolSpec,
        settings: IndexSettings,
        *,
        state: EngineState | None,
        addresses: Addresses,
        items: Iterable[Records],
    ) -> "PoolIndex":
        """Return an index of `items`, which come in the pool's order and have `addresses` (n,).

        Without a `state` it is exact at first, even where the pool wants an engine that has to be trained; `maintained`
        gives that one.
        """
        trained_on = state.trained_on if state else 0
        choice = choose(spec, items=len(addresses), trained_on=trained_on, rules=settings.rules)
        if wants_training(choice, spec, items=len(addresses), trained_on=trained_on):
            choice = replace(choice, kind=ENGINES["flat"])
        engine = _build(spec, settings, choice, items=len(addresses), state=state, sample=_nothing)
        index = cls(spec, settings, choice=choice, state=state, engine=engine)
        start = 0
        for records in items:
            if records.vectors is None:
                raise ValueError("items without vectors cannot be indexed")
            index.append(records.ids, records.vectors, addresses[start : start + len(records)])
            start += len(records)
        if start != len(addresses):
            raise ValueError(f"{start} items came, not {len(addresses)}")
        return index

    def __len__(self) -> int:
        return len(self.table)

    @property
    def engine(self) -> Engine:
        """The engine in use."""
        return self._engine

    @property
    def state(self) -> EngineState | None:
        """What the last training found."""
        return self._state

    def append(self, ids: Sequence[ItemId], vectors: FloatMatrix, addresses: Addresses) -> None:
        """Take in items whose ids the index does not have, with vectors (n, d) as stored."""
        arrivals = self.arrivals()
        self.stage(arrivals, vectors)
        self.publish(arrivals, ids, addresses)

    def arrivals(self) -> Arrivals:
        """Begin to take in items that are in no answer before they are published."""
        return Arrivals(first=self._engine.size, dimension=self._spec.dimension)

    def stage(self, arrivals: Arrivals, vectors: FloatMatrix) -> None:
        """Put some more vectors (n, d), as stored, into the engine."""
        lengths = lengths_of(vectors)
        compared = self._compared(vectors, lengths)
        self._engine.add(np.arange(self._engine.size, self._engine.size + len(vectors)), compared)
        arrivals.lengths.append(lengths.astype(np.float32))
        arrivals.direction.add(compared)
        arrivals.longest = max(arrivals.longest, float(lengths.max(initial=0)))

    def publish(self, arrivals: Arrivals, ids: Sequence[ItemId], addresses: Addresses) -> None:
        """Let what was staged since `arrivals` be found, as the items `ids`, which the index does not have."""
        if not len(ids):
            return
        self.table.skip_to(arrivals.first)  # what was staged before, and never published
        self._engine.reveal(self.table.append(ids, addresses, np.concatenate(arrivals.lengths)))
        self._direction.merge(arrivals.direction)
        self._longest = max(self._longest, arrivals.longest)

    def remove(self, rows: Rows) -> None:
        """Let the items at `rows` go."""
        for part in _blocks(rows, _COPY_BYTES // (4 * self._spec.dimension)):
            self._direction.remove(self._engine.vectors(part))
        self._engine.remove(rows)
        self.table.retire(rows)

    def search(self, queries: Vectors, k: int, *, excluded: Rows | None = None) -> tuple[Rows, NDArray[np.float32]]:
        """Return the k nearest rows of each query and their scores, each (q, k); rows are −1 where there are fewer.

        Parameters
        ----------
        queries
            (q, d) as given by the caller.
        excluded
            Rows that are in no answer.
        """
        return self._search(self._compared(queries, lengths_of(queries)), k, excluded=excluded, own=None)

    def _search(
        self, compared: Vectors, k: int, *, excluded: Rows | None, own: Rows | None
    ) -> tuple[Rows, NDArray[np.float32]]:
        rows = np.full((len(compared), k), -1, np.int64)
        scores = np.zeros((len(compared), k), np.float32)
        if not len(self.table):
            return rows, scores
        unclear, fetch = np.arange(len(compared)), k + _SPARE
        limit = self._fetch_limit(k)
        while len(unclear):
            fetch = min(fetch, limit)
            left = []
            for some in _blocks(unclear, _GATHER_BYTES // (4 * fetch * self._spec.dimension)):
                mine = None if own is None else own[some]
                rows[some], scores[some], clear = self._search_once(compared[some], k, fetch, excluded, mine)
                left.append(some[~clear])
            if fetch == limit:
                break
            unclear, fetch = np.concatenate(left), 4 * fetch
        return rows, scores

    def _fetch_limit(self, k: int) -> int:
        reachable = MAX_GPU_NEIGHBORS if self._engine.device == Device.CUDA else _MAX_FETCH
        return max(min(reachable, 16 * (k + _SPARE), len(self.table)), k + 1)

    def _search_once(
        self, compared: Vectors, k: int, fetch: int, excluded: Rows | None, own: Rows | None
    ) -> tuple[Rows, NDArray[np.float32], NDArray[np.bool_]]:
        """Return rows and scores (q, k) out of `fetch` > k neighbours, and for which queries that is surely right."""
        found, rough = self._engine.search(compared, fetch, excluded=excluded)
        neighbors = self._engine.vectors(np.maximum(found, 0).reshape(-1)).reshape(*found.shape, -1)
        scores = pair_scores(self._spec.metric, compared, neighbors)
        valid = found >= 0
        if own is not None:
            valid &= found != own[:, None]
        sign = -1 if self._spec.metric.higher_is_nearer else 1
        keys = np.where(valid, sign * scores, np.inf)
        best = np.lexsort((found, keys), axis=-1)[:, :k]
        rows = np.where(np.take_along_axis(valid, best, -1), np.take_along_axis(found, best, -1), -1)
        clear = (found[:, -1] < 0) | self._beyond(compared, np.take_along_axis(keys, best, -1)[:, -1], rough[:, -1])
        return rows, np.where(rows < 0, 0, np.take_along_axis(scores, best, -1)), clear

    def _beyond(self, compared: Vectors, kth: NDArray[np.float64], last: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether the `last` score that an engine gave is surely worse than that of the k-th row (a key, exact): (q,).

        Surely: by more than the rounding of a float32 product of d terms.
        """
        longest = 1.0 if self._spec.metric is Metric.COSINE else self._longest
        rounding = 4 * np.sqrt(self._spec.dimension) * np.finfo(np.float32).eps
        if self._spec.metric is Metric.L2:
            beyond: NDArray[np.bool_] = kth**2 < last - rounding * (lengths_of(compared) + longest) ** 2
        else:
            beyond = -kth > last + rounding * lengths_of(compared) * longest
        return beyond

    def search_rows(self, rows: Rows, k: int, *, excluded: Rows | None = None) -> tuple[Rows, NDArray[np.float32]]:
        """Return what `search` does for the items at `rows` as queries, each left out of its own answer."""
        if not len(rows):
            return np.empty((0, k), np.int64), np.empty((0, k), np.float32)
        return self._search(self._engine.vectors(rows), k, excluded=excluded, own=rows)

    def stored_vectors(self, rows: Rows) -> FloatMatrix:
        """Return the vectors of `rows` as the pool keeps them: (n, d) float32 or float16.

        From memory. Under cosine they are unit vectors times length, so a float32 may differ from the stored one in its
        last place; float16 does not.
        """
        vectors = self._engine.vectors(rows)
        if self._spec.metric is Metric.COSINE:
            vectors = vectors * self.table.lengths_at(rows)[:, None]
        return vectors.astype(self._spec.vector_type.dtype, copy=False)

    def mean_direction(self, *, without: Rows) -> NDArray[np.float32]:
        """Return the mean unit vector of the items, less those at `without`: (d,) float32."""
        left_out = DirectionSum(self._spec.dimension)
        for part in _blocks(without, _COPY_BYTES // (4 * self._spec.dimension)):
            left_out.add(self._engine.vectors(part))
        return self._direction.mean(len(self.table) - len(without), without=left_out)

    def sample(self, count: int) -> Vectors:
        """Return the vectors of `count` items spread evenly over the pool's order, or of all if there are fewer."""
        live = self.table.live_rows()
        if len(live) > count:
            live = live[np.linspace(0, len(live) - 1, count).astype(np.int64)]
        return self._engine.vectors(live)

    def maintained(self) -> "PoolIndex | None":
        """Return an index of the same items that should take the place of this one, or None if this one is well.

        It is another when the pool has outgrown its engine, when training is due, or when too many rows are masked.
        """
        trained_on = self._state.trained_on if self._state else 0
        choice = choose(self._spec, items=len(self), trained_on=trained_on, rules=self._settings.rules)
        train = wants_training(choice, self._spec, items=len(self), trained_on=trained_on)
        masked = self._engine.removed > self._settings.max_removed_share * max(self._engine.size, 1024)
        same = choice.kind is self.choice.kind and choice.device is self.choice.device
        if same and not train and not masked:
            self.choice = choice
            return None
        return self._rebuilt(choice, train=train)

    def close(self) -> None:
        """Free device memory. `stored_vectors` and `table` may still be read after it."""
        self._engine.close()

    def _rebuilt(self, choice: Choice, *, train: bool) -> "PoolIndex":
        live = self.table.live_rows()
        state = None if train else self._state
        engine = _build(self._spec, self._settings, choice, items=len(live), state=state, sample=self.sample)
        for part in _blocks(live, _COPY_BYTES // (4 * self._spec.dimension)):
            engine.add(np.arange(engine.size, engine.size + len(part)), self._engine.vectors(part))
        engine.reveal(np.arange(len(live)))
        content = engine.save()
        if train and content is not None:
            state = EngineState(engine=engine.name, trained_on=len(live), content=content)
        other = PoolIndex(self._spec, self._settings, choice=choice, state=state, engine=engine)
        other.table = self.table.compacted()
        other._direction, other._longest = self._direction, self._longest
        return other

    def _compared(self, vectors: FloatMatrix, lengths: NDArray[np.float64]) -> Vectors:
        if self._spec.metric is Metric.COSINE:
            return unit_vectors(vectors, lengths)
        return vectors.astype(np.float32, copy=False)


def _build(
    spec: PoolSpec,
    settings: IndexSettings,
    choice: Choice,
    *,
    items: int,
    state: EngineState | None,
    sample: Callable[[int], Vectors],
) -> Engine:
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
    )
    return choice.kind.build(request)


def _nothing(count: int) -> Vectors:
    raise AssertionError(f"training on {count} vectors of an index that has none yet")


def _blocks(positions: Rows, size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(positions), max(1, size)):
        yield positions[start : start + max(1, size)]
