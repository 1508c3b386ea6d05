"""The services behind the scheduler, in memory: fakes at its two ports, deterministic, and able to be away."""

import hashlib
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from sealpool.errors import FailedPrecondition, NotFound, SealpoolError
from sealpool.types import ItemId, Items, LabelledItems, Payload
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


class FakeIndex:
    """Pools of ids and payloads."""

    def __init__(self) -> None:
        self.pools: dict[str, dict[ItemId, Payload]] = {}
        self.dimensions: dict[str, int] = {}
        """Of pools that differ from the others' 4."""
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
        return index_pb2.Pool(
            spec=index_pb2.PoolSpec(name=name, dimension=self.dimensions.get(name, 4)),
            version=7,
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
        return Items(ids=present, payloads=[items[item] for item in present] if payloads else None)

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
        left = [item for item in self._pool(pool) if item not in set(exclude)]
        return random.Random(seed).sample(left, min(count, len(left)))

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

    def train(self, header: learner_pb2.TrainHeader, examples: LabelledItems) -> learner_pb2.TrainResult:
        self.troubles.meet("train")
        if len({tuple(labels) for labels in examples.labels}) < 2:
            raise FailedPrecondition("fewer than two classes")
        self.trained.append((header, examples))
        content = repr((header.seed, sorted(zip(examples.ids, map(tuple, examples.labels), strict=True))))
        self._models[header.campaign, header.round] = content
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

    def _model(self, campaign: str, number: int) -> str:
        if (campaign, number) not in self._models:
            raise NotFound("checkpoint", f"{campaign}/{number}")
        return self._models[campaign, number]
