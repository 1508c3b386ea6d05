"""The services behind the scheduler, in memory: fakes at its two ports, deterministic, and able to be away."""

import hashlib
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from sealpool.client import Neighbors, Predictions
from sealpool.errors import FailedPrecondition, NotFound, SealpoolError
from sealpool.types import ItemId, Items, LabelledItems, Payload, Vectors
from sealpool.v1 import common_pb2, index_pb2, learner_pb2


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


class Troubles:
    """Errors that the next calls of a method end in, and gates that they wait at."""

    def __init__(self) -> None:
        self._errors: dict[str, list[SealpoolError]] = {}
        self._always: dict[str, SealpoolError] = {}
        self._gates: dict[str, threading.Event] = {}
        self.reached: dict[str, threading.Event] = {}
        self.calls: list[str] = []

    def once(self, method: str, *errors: SealpoolError) -> None:
        self._errors.setdefault(method, []).extend(errors)

    def always(self, method: str, error: SealpoolError | None) -> None:
        self._always.pop(method, None)
        if error is not None:
            self._always[method] = error

    def hold(self, method: str) -> Callable[[], None]:
        gate = self._gates[method] = threading.Event()
        self.reached[method] = threading.Event()
        return gate.set

    def release(self) -> None:
        for gate in self._gates.values():
            gate.set()

    def meet(self, method: str) -> None:
        self.calls.append(method)
        if method in self._gates:
            self.reached[method].set()
            assert self._gates[method].wait(20)
        waiting = self._errors.get(method)
        if waiting:
            raise waiting.pop(0)
        if method in self._always:
            raise self._always[method]


DIMENSION = 4


def vector_of(text: str) -> Vectors:
    """Return the unit vector (4,) that stands for a text, or for the id of an item that was given none."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


class FakeIndex:
    """Pools of ids, payloads and vectors; searched by cosine similarity."""

    def __init__(self) -> None:
        self.pools: dict[str, dict[ItemId, Payload]] = {}
        self.vectors: dict[str, dict[ItemId, Vectors]] = {}
        """Of items that were upserted with one; every other item has `vector_of` its id."""
        self.dimensions: dict[str, int] = {}
        """Of pools that differ from the others' 4."""
        self.versions: dict[str, int] = {}
        """Of pools that differ from the others' 7."""
        self.loading: set[str] = set()
        """Pools that are being read from disk."""
        self.dropped: list[tuple[str, str]] = []
        self.troubles = Troubles()

    def add_pool(self, name: str, count: int, *, classes: Sequence[str] = ("a", "b"), field: str = "labels") -> None:
        """Make a pool of i000, i001, … of which item i has class i modulo their number in its metadata."""
        prefix = "i" if name == "pool" else f"{name}-"
        self.pools[name] = {
            ItemId(f"{prefix}{i:03d}"): Payload(text=f"text {i}", metadata={field: classes[i % len(classes)]})
            for i in range(count)
        }

    def get_pool(self, name: str) -> index_pb2.Pool:
        self.troubles.meet("get_pool")
        if name in self.loading:
            return index_pb2.Pool(spec=index_pb2.PoolSpec(name=name), state=index_pb2.POOL_STATE_LOADING)
        return index_pb2.Pool(
            spec=index_pb2.PoolSpec(name=name, dimension=self.dimensions.get(name, 4)),
            version=self.versions.get(name, 7),
            size=len(self._pool(name)),
        )

    def get_items(
        self,
        pool: str,
        ids: Sequence[ItemId],
        *,
        vectors: bool = True,
        payloads: bool = False,
        allow_missing: bool = False,
    ) -> Items:
        self.troubles.meet("get_items")
        items = self._pool(pool)
        missing = [item for item in ids if item not in items]
        if missing and not allow_missing:
            raise NotFound("item", *missing)
        present = [item for item in ids if item in items]
        return Items(
            ids=present,
            vectors=self._matrix(pool, present) if vectors else None,
            payloads=[items[item] for item in present] if payloads else None,
        )

    def scan_items(self, pool: str, *, vectors: bool = True, payloads: bool = False) -> Iterator[Items]:
        self.troubles.meet("scan_items")
        items = self._pool(pool)
        ids = list(items)
        for start in range(0, len(ids), 10):
            some = ids[start : start + 10]
            yield Items(ids=some, payloads=[items[item] for item in some] if payloads else None)

    def sample_items(
        self, pool: str, count: int, *, seed: int, campaign: str = "", exclude: Sequence[ItemId] = ()
    ) -> list[ItemId]:
        self.troubles.meet("sample_items")
        out = set(exclude)
        left = [item for item in self._pool(pool) if item not in out]
        return random.Random(seed).sample(left, min(count, len(left)))

    def search(
        self,
        pool: str,
        *,
        k: int,
        vectors: Vectors | None = None,
        ids: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        include_vectors: bool = False,
    ) -> Neighbors:
        self.troubles.meet("search")
        items = list(self._pool(pool))
        matrix = self._matrix(pool, items)
        queries = vectors if vectors is not None else self._matrix(pool, [ItemId(item) for item in ids or ()])
        found: list[ItemId] = []
        scores: list[float] = []
        counts = []
        for position, query in enumerate(queries):
            similarity = matrix @ (query / np.linalg.norm(query))
            itself = {ids[position]} if ids is not None else set()
            order = [row for row in np.argsort(-similarity, kind="stable") if items[row] not in {*exclude, *itself}]
            nearest = order[:k]
            counts.append(len(nearest))
            found.extend(items[row] for row in nearest)
            scores.extend(float(similarity[row]) for row in nearest)
        return Neighbors(
            counts=np.asarray(counts, np.int64),
            ids=found,
            scores=np.asarray(scores, np.float32),
            pool_version=7,
            vectors=self._matrix(pool, found) if include_vectors else None,
        )

    def upsert(self, pool: str, items: Items) -> index_pb2.UpsertResponse:
        self.troubles.meet("upsert")
        held = self._pool(pool)
        inserted = sum(item not in held for item in items.ids)
        for position, item in enumerate(items.ids):
            held[item] = items.payloads[position] if items.payloads else Payload()
            assert items.vectors is not None
            self.vectors.setdefault(pool, {})[item] = items.vectors[position]
        return index_pb2.UpsertResponse(pool_version=8, inserted=inserted, replaced=len(items.ids) - inserted)

    def _matrix(self, pool: str, ids: Sequence[ItemId]) -> Vectors:
        given = self.vectors.get(pool, {})
        rows = [given.get(item, vector_of(item)) for item in ids]
        return np.stack(rows) if rows else np.empty((0, DIMENSION), np.float32)

    def drop_candidates(self, pool: str, campaign: str) -> int:
        self.troubles.meet("drop_candidates")
        self._pool(pool)
        self.dropped.append((pool, campaign))
        return 0

    def _pool(self, name: str) -> dict[ItemId, Payload]:
        if name not in self.pools:
            raise NotFound("pool", name)
        return self.pools[name]


class FakeLearner:
    """Picks by a hash of the seed, the item and the whole labelled set, so that any difference in those shows."""

    def __init__(self, index: FakeIndex) -> None:
        self._index = index
        self.troubles = Troubles()
        self.trained: list[tuple[learner_pb2.TrainHeader, LabelledItems]] = []
        self.evaluated: list[LabelledItems] = []
        self.told_classes: list[dict[ItemId, tuple[int, ...]]] = []
        self.notes: list[str] = []
        """Of every training from now on."""
        self.chosen = ("", "")
        """The strategy that every selection says it took, and why; "" for the one asked for."""
        self.selected: list[tuple[learner_pb2.SelectHeader, list[str], list[bool], list[str]]] = []
        self._models: dict[tuple[str, int], str] = {}
        self._classes: dict[str, list[str]] = {}

    def train(self, header: learner_pb2.TrainHeader, examples: LabelledItems) -> learner_pb2.TrainResult:
        self.troubles.meet("train")
        if len({tuple(labels) for labels in examples.labels}) < 2:
            raise FailedPrecondition("fewer than two classes")
        self.trained.append((header, examples))
        content = repr((header.seed, sorted(zip(examples.ids, map(tuple, examples.labels), strict=True))))
        self._models[header.campaign, header.round] = content
        self._classes[header.campaign] = list(header.classes)
        return learner_pb2.TrainResult(examples=len(examples), train_seconds=0.25, pool_version=7, notes=self.notes)

    def evaluate(self, header: learner_pb2.EvaluateHeader, examples: LabelledItems) -> learner_pb2.EvaluateResponse:
        self.troubles.meet("evaluate")
        self._model(header.campaign, header.round)
        self.evaluated.append(examples)
        quality = common_pb2.Quality(items=len(examples), accuracy=0.5, macro_f1=float("nan"))
        return learner_pb2.EvaluateResponse(quality=quality, seconds=0.125, pool_version=3)

    def select(
        self,
        header: learner_pb2.SelectHeader,
        labelled_ids: Sequence[ItemId],
        expand_from: Sequence[bool],
        excluded_ids: Sequence[ItemId],
        *,
        classes: Sequence[Sequence[int]] = (),
    ) -> learner_pb2.SelectResponse:
        self.troubles.meet("select")
        self.told_classes.append(dict(zip(labelled_ids, map(tuple, classes), strict=bool(classes))))
        model = "" if header.without_model else self._model(header.campaign, header.round)
        self.selected.append((header, list(labelled_ids), list(expand_from), list(excluded_ids)))
        taken = {*labelled_ids, *excluded_ids}
        free = [item for item in self._index.pools[header.pool] if item not in taken]
        free.sort(key=lambda item: hashlib.sha256(f"{model}{header.seed}{item}".encode()).digest())
        picks = free[: header.batch_size]
        return learner_pb2.SelectResponse(
            ids=picks,
            scores=[1.0 / (rank + 1) for rank in range(len(picks))],
            origins=[common_pb2.PICK_ORIGIN_CANDIDATE] * len(picks),
            candidates=common_pb2.CandidatePoolInfo(version=header.round, size=len(free), pool_share=0.5, added=4),
            expand_seconds=0.5,
            score_seconds=0.0625,
            pool_version=7,
            strategy=self.chosen[0] or header.strategy.name,
            strategy_reason=self.chosen[1],
        )

    def predict(
        self,
        campaign: str,
        *,
        round: int | None = None,  # noqa: A002 - the port's
        ids: Sequence[str] | None = None,
        vectors: Vectors | None = None,
        texts: Sequence[str] | None = None,
    ) -> Iterator[Predictions]:
        """Say what a hash of the model and the item, vector or text makes of each class."""
        self.troubles.meet("predict")
        number = max((n for c, n in self._models if c == campaign), default=-1) if round is None else round
        model = self._model(campaign, number)
        given = [str(one) for one in (ids if ids is not None else vectors if vectors is not None else texts or ())]
        classes = self._classes[campaign]
        yield Predictions(
            ids=[ItemId(item) for item in ids or ()],
            probabilities=np.array([self._probabilities(f"{model}{one}", len(classes)) for one in given], np.float32),
            classes=classes,
            round=number,
        )

    def cross_predict(
        self, header: learner_pb2.TrainHeader, examples: LabelledItems, *, folds: int
    ) -> Iterator[Predictions]:
        self.troubles.meet("cross_predict")
        rows = [self._probabilities(f"{folds}{item}", len(header.classes)) for item in examples.ids]
        yield Predictions(
            ids=list(examples.ids), probabilities=np.array(rows, np.float32), classes=header.classes, round=0
        )

    def embed(
        self, items: Iterable[str | bytes], *, encoder: str, pooling: str, normalize: bool, max_tokens: int
    ) -> Iterator[Vectors]:
        self.troubles.meet("embed")
        if not encoder:
            raise FailedPrecondition("no encoder")
        for item in items:
            yield vector_of(str(item))[None]

    @staticmethod
    def _probabilities(content: str, classes: int) -> list[float]:
        seed = int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big")
        return [float(share) for share in np.random.default_rng(seed).dirichlet(np.ones(classes))]

    def _model(self, campaign: str, number: int) -> str:
        if (campaign, number) not in self._models:
            raise NotFound("checkpoint", f"{campaign}/{number}")
        return self._models[campaign, number]
