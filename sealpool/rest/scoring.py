"""Probabilities of every item of a pool, in its order: the model's, those of propagation, or both side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sealpool.client.learner import Predictions
from sealpool.errors import FailedPrecondition
from sealpool.rest.deciding import By
from sealpool.rest.manifest import RestRequest
from sealpool.types import ItemId, Items, LabelledItems
from sealpool.v1 import learner_pb2, scheduler_pb2

_IDS_A_CALL = 20_000


class Learner(Protocol):
    """What is asked of the learner. `sealpool.client.LearnerClient` is one; errors are sealpool.errors."""

    def predict(
        self,
        campaign: str,
        *,
        round: int | None = None,  # noqa: A002 - the field's name everywhere
        pool: str = "",
        ids: Sequence[str] | None = None,
    ) -> Iterator[Predictions]:
        """Yield probabilities of `ids`, or, without, of the whole pool."""

    def propagate(
        self, header: learner_pb2.PropagateHeader, examples: LabelledItems
    ) -> Iterator[tuple[Predictions, NDArray[np.float32]]]:
        """Yield probabilities of the whole pool, spread from labelled items, with their mass."""


class Index(Protocol):
    """What is asked of the index server. `sealpool.client.IndexClient` is one; errors are sealpool.errors."""

    def scan_items(self, pool: str, *, vectors: bool = True, payloads: bool = False) -> Iterator[Items]:
        """Yield all items in the pool's own order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """Some items. `model` and `propagated` (n, c) and `mass` (n,) are float32, or None where not asked for."""

    ids: Sequence[ItemId]
    model: NDArray[np.float32] | None
    propagated: NDArray[np.float32] | None
    mass: NDArray[np.float32] | None
    round: int | None
    pool_version: int

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> "Scored":
        """Return some consecutive ones."""
        some = slice(start, stop)
        return replace(
            self,
            ids=self.ids[some],
            model=None if self.model is None else self.model[some],
            propagated=None if self.propagated is None else self.propagated[some],
            mass=None if self.mass is None else self.mass[some],
        )


def score_pool(
    request: RestRequest,
    spec: scheduler_pb2.CampaignSpec,
    examples: LabelledItems,
    *,
    learner: Learner,
    index: Index,
    skip: int,
) -> Iterator[Scored]:
    """Yield the items of the campaign's pool from place `skip` on.

    Items that are skipped are not predicted: the model is asked for the others by their ids. Propagation needs the
    whole graph each time.
    """
    match request.by:
        case By.MODEL:
            return _by_model(request, spec, learner=learner, index=index, skip=skip)
        case By.PROPAGATION:
            return _by_propagation(request, spec, examples, learner=learner, skip=skip)
        case By.BOTH:
            model = _by_model(request, spec, learner=learner, index=index, skip=skip)
            return _joined(model, _by_propagation(request, spec, examples, learner=learner, skip=skip), spec.pool)


def _by_model(
    request: RestRequest, spec: scheduler_pb2.CampaignSpec, *, learner: Learner, index: Index, skip: int
) -> Iterator[Scored]:
    if not skip:
        answers = learner.predict(spec.name, round=request.round, pool=spec.pool)
    else:
        answers = (
            answer
            for ids in _ids_from(index, spec.pool, skip)
            for answer in learner.predict(spec.name, round=request.round, pool=spec.pool, ids=ids)
        )
    for answer in answers:
        yield Scored(
            ids=answer.ids,
            model=answer.probabilities,
            propagated=None,
            mass=None,
            round=answer.round,
            pool_version=answer.pool_version,
        )


def _ids_from(index: Index, pool: str, skip: int) -> Iterator[list[ItemId]]:
    held: list[ItemId] = []
    for piece in index.scan_items(pool, vectors=False):
        passed = min(skip, len(piece))
        skip -= passed
        held += piece.ids[passed:]
        while len(held) >= _IDS_A_CALL:
            yield held[:_IDS_A_CALL]
            held = held[_IDS_A_CALL:]
    if held:
        yield held


def _by_propagation(
    request: RestRequest, spec: scheduler_pb2.CampaignSpec, examples: LabelledItems, *, learner: Learner, skip: int
) -> Iterator[Scored]:
    header = learner_pb2.PropagateHeader(
        pool=spec.pool,
        task=spec.task,
        classes=spec.classes,
        k=request.k,
        alpha=request.alpha,
        max_iterations=request.max_iterations,
    )
    for answer, mass in learner.propagate(header, examples):
        passed = min(skip, len(answer.ids))
        skip -= passed
        found = Scored(
            ids=answer.ids,
            model=None,
            propagated=answer.probabilities,
            mass=mass,
            round=None,
            pool_version=answer.pool_version,
        )
        if passed < len(found):
            yield found.part(passed, len(found))


def _joined(model: Iterator[Scored], propagated: Iterator[Scored], pool: str) -> Iterator[Scored]:
    """Put side by side what two streams, cut at other places, say of the same items."""
    other = next(propagated, None)  # first: it takes long, and the model's stream has a deadline
    one = next(model, None)
    while one is not None and other is not None:
        count = min(len(one), len(other))
        if list(one.ids[:count]) != list(other.ids[:count]) or one.pool_version != other.pool_version:
            break
        beside = other.part(0, count)
        yield replace(one.part(0, count), propagated=beside.propagated, mass=beside.mass)
        one = one.part(count, len(one)) if count < len(one) else next(model, None)
        other = other.part(count, len(other)) if count < len(other) else next(propagated, None)
    if one is not None or other is not None:
        raise FailedPrecondition(f"pool {pool!r} has changed between the two ways of labelling it: begin again")
