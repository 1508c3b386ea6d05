"""What the figures share: how large they are, candidates, and a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.data import gaussian_mixture, item_ids
from benchmarks.report import Target
from learner.candidates import Candidates
from learner.contexts import Lens, make_labelled
from learner.device import Mirror
from learner.models import make_classifier
from learner.options import ModelOptions, StrategyOptions
from learner.ports import BatchStrategy, Classifier, TrainingSet
from learner.problem import Problem, Task
from learner.scoring import BatchPicker, ScoredItem, Scorer
from learner.sources import CandidateSource
from learner.strategies import make_strategy
from sealpool.types import ItemId, Items, Vectors
from sealpool.v1 import common_pb2

FULL_ITEMS: Final = 1_000_000
CLASSES: Final = 10
BATCH: Final = 100
LABELLED: Final = 1000
BATCH_ROWS: Final = 16_384
"""As learner.settings has it."""
CPU: Final = torch.device("cpu")
PROBLEM: Final = Problem(task=Task.MULTICLASS, classes=tuple(f"class {number}" for number in range(CLASSES)))
NO_ROWS: Final = np.empty(0, np.int64)

Pick = Callable[[int], list[ScoredItem]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How large a run is.

    Parameters
    ----------
    items
        Stands for the million of a full run; other sizes are shares of it.
    repetitions
        Of what takes a second or less.
    texts
        JSON lines to embed, None for none.
    """

    items: int
    dimension: int
    repetitions: int
    texts: Path | None = None


class CountingMirror(Mirror):
    """A Mirror that counts the vectors that are asked of it."""

    def __init__(self, device: torch.device, *, limit_bytes: int) -> None:
        super().__init__(device, limit_bytes=limit_bytes)
        self.read = 0

    def rows(self, candidates: Candidates, start: int, stop: int) -> torch.Tensor:
        """Return the vectors of slots start to stop − 1."""
        self.read += stop - start
        return super().rows(candidates, start, stop)

    def take(self, candidates: Candidates, slots: NDArray[np.int64]) -> torch.Tensor:
        """Return the vectors of some slots."""
        self.read += len(slots)
        return super().take(candidates, slots)


class Workbench:
    """Candidates made once, and what picks among them."""

    def __init__(self, options: Options) -> None:
        self.options = options
        # Only the last few are kept: a million candidates are 1 GB, and as much again in the learner's own arrays.
        self.vectors = lru_cache(2)(self._make_vectors)
        self.source = lru_cache(2)(self._make_source)

    def share(self, of_a_million: int) -> int:
        """Return a size that is, in a full run, `of_a_million`."""
        return max(1, self.options.items * of_a_million // FULL_ITEMS)

    def at_full_size(self, target: Target) -> Target | None:
        """Return a target where the run has the size that it speaks of."""
        return target if self.options.items >= FULL_ITEMS else None

    @cached_property
    def labelled_vectors(self) -> Vectors:
        """(LABELLED, d) unit vectors of a mixture of 20 centres, none of them a candidate."""
        return gaussian_mixture(20 * LABELLED, self.options.dimension, seed=1)[:LABELLED].copy()

    @cached_property
    def labelled_targets(self) -> NDArray[np.int64]:
        """(LABELLED,), see `targets_of`."""
        return targets_of(self.labelled_vectors)

    @cached_property
    def model(self) -> Classifier:
        """Logistic regression fitted to the labelled vectors."""
        return fitted(self.labelled_vectors, self.labelled_targets)

    def lens(
        self, source: CandidateSource, *, model: Classifier | None = None, labelled: int = LABELLED, seed: int = 0
    ) -> Lens:
        """Return what strategies see `source` through."""
        model = model or self.model
        return Lens(
            problem=PROBLEM,
            classifier=model,
            labelled=make_labelled(
                torch.from_numpy(self.labelled_vectors[:labelled]),
                self.labelled_targets[:labelled],
                texts=None,
                classifier=model,
            ),
            direction=source.candidates.direction,
            device=CPU,
            seed=seed,
        )

    def picker(
        self,
        name: str,
        items: int,
        *,
        count: int = BATCH,
        lens: Lens | None = None,
        options: StrategyOptions | None = None,
    ) -> Pick:
        """Return what picks `count` of `items` candidates by a strategy, as the learner does."""
        source = self.source(items)
        strategy = make_strategy(options or StrategyOptions(name=name), PROBLEM)
        return picker_of(source, strategy, lens or self.lens(source), count=min(count, items))

    def _make_vectors(self, items: int) -> Vectors:
        return gaussian_mixture(items, self.options.dimension)

    def _make_source(self, items: int) -> CandidateSource:
        return source_of(self.vectors(items))


def picker_of(source: CandidateSource, strategy: object, lens: Lens, *, count: int) -> Pick:
    """Return what picks `count` candidates of a source."""

    def pick(_: int) -> list[ScoredItem]:
        tool = (
            BatchPicker(lens=lens, strategy=strategy, batch_rows=BATCH_ROWS)
            if isinstance(strategy, BatchStrategy)
            else Scorer(lens=lens, strategy=strategy, batch_rows=BATCH_ROWS)  # type: ignore[arg-type]
        )
        return tool.pick(source, count=count, barred=NO_ROWS, cancelled=lambda: False)

    return pick


def rows_of(picked: list[ScoredItem]) -> list[int]:
    """Return which rows of the vectors were picked: what benchmarks.data.item_ids puts last."""
    return [int(item.id.rpartition("-")[2], 16) for item in picked]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Update:
    """Candidates that came in one answer."""

    added: Items
    removed: list[ItemId]
    info: common_pb2.CandidatePoolInfo
    base_version: int
    pool_direction: NDArray[np.float32]
    pool_version: int


def put(candidates: Candidates, ids: Sequence[ItemId], vectors: Vectors) -> None:
    """Add items to candidates, as an answer of the index server does."""
    held = candidates.version
    candidates.apply(
        _Update(
            added=Items(ids=list(ids), vectors=vectors),
            removed=[],
            info=common_pb2.CandidatePoolInfo(version=held + 1),
            base_version=held,
            pool_direction=np.zeros(vectors.shape[1], np.float32),
            pool_version=1,
        )
    )


def source_of(vectors: Vectors, device: torch.device = CPU) -> CandidateSource:
    """Return candidates as the learner holds them."""
    candidates = Candidates()
    put(candidates, item_ids(len(vectors)), vectors)
    mirror = CountingMirror(device, limit_bytes=vectors.nbytes)
    return CandidateSource(candidates=candidates, mirror=mirror, read=_read_nothing, device=device)


def _read_nothing(ids: Sequence[ItemId]) -> Items:
    raise AssertionError(f"{len(ids)} vectors are held and need not be read")


def targets_of(vectors: Vectors, *, noise: float = 0.0) -> NDArray[np.int64]:
    """Return the class (n,) whose random direction a vector points to most, after noise of that standard deviation.

    The first CLASSES have one class each, so that no class is without a label.
    """
    random = np.random.default_rng(5)
    directions = random.standard_normal((vectors.shape[1], CLASSES), np.float32)
    z = vectors @ directions + noise * random.standard_normal((len(vectors), CLASSES), np.float32)
    classes: NDArray[np.int64] = z.argmax(axis=1)
    classes[:CLASSES] = np.arange(min(CLASSES, len(classes)))
    return classes


def fitted(
    vectors: Vectors,
    targets: NDArray[np.int64],
    options: ModelOptions | None = None,
    *,
    device: torch.device = CPU,
) -> Classifier:
    """Return a model fitted to labelled vectors."""
    model = make_classifier(options or ModelOptions(), PROBLEM)
    model.fit(
        TrainingSet(vectors=vectors, targets=targets),
        validation=None,
        warm=False,
        seed=0,
        device=device,
        progress=lambda _iteration, _loss: None,
        cancelled=lambda: False,
    )
    return model
