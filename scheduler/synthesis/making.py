"""How items are made, or found, by each method."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from scheduler.asking import asking
from scheduler.domain.origin import made_id
from scheduler.ports import Index, Learner
from scheduler.storage import synthetic
from scheduler.storage.store import Store
from scheduler.streams.incoming import embed_for_pool, open_intake
from scheduler.streams.judging import judge, predicted
from scheduler.synthesis.augmenting import CHANGES, Change, augment
from scheduler.synthesis.nearest import nearest_items
from scheduler.synthesis.paraphrasing import Paraphraser, Wanted
from scheduler.synthesis.plan import Plan
from scheduler.synthesis.points import Pair, between, boundary, differing_pairs
from sealpool.errors import FailedPrecondition
from sealpool.types import ItemId, Items, Payload, Vectors
from sealpool.v1 import stream_pb2
from sealpool.validation import MAX_TEXT_BYTES

ITEMS_A_CALL = 1_000
SOURCES = 10_000
"""Labelled items that are read for one request; of more, some are drawn."""
PASSES = 4
"""Over the sources, where what was made of them was there already, or no different."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What came of a request: items, and for those that are new what the pool is to have of them."""

    items: Sequence[stream_pb2.SyntheticItem]
    new: Items | None = None


class Maker:
    """Makes items by the method that a plan names. It writes nothing."""

    def __init__(self, *, store: Store, index: Index, learner: Learner, paraphraser: Paraphraser) -> None:
        self._store = store
        self._index = index
        self._learner = learner
        self._paraphraser = paraphraser

    def make(self, plan: Plan) -> Made:
        """Make up to `plan.count` items; fewer where no more can be made or found.

        Raises
        ------
        FailedPrecondition
            The campaign lacks what the method needs; the message says what.
        """
        if plan.method == stream_pb2.SYNTHESIS_METHOD_INTERPOLATE:
            return self._interpolate(plan)
        if plan.method == stream_pb2.SYNTHESIS_METHOD_BOUNDARY:
            return self._boundary(plan)
        return self._from_texts(plan)

    def _interpolate(self, plan: Plan) -> Made:
        randomness = plan.randomness()
        pairs = differing_pairs(plan.sources, plan.count, randomness=randomness)
        if not pairs:
            raise FailedPrecondition(
                "the labelled items are all of one class: there is nothing between", field="campaign"
            )
        starts, ends, pairs = self._ends(plan, pairs)
        return self._real(plan, between(starts, ends, randomness=randomness), pairs)

    def _boundary(self, plan: Plan) -> Made:
        rows, vectors = _with_vectors(self._read(plan, plan.some_sources(SOURCES), vectors=True))
        minds = dict(zip(rows, self._minds(plan, vectors), strict=True))
        pairs = differing_pairs(minds, plan.count, randomness=plan.randomness())
        if not pairs:
            raise FailedPrecondition(
                "the model says the same of all labelled items: there is no boundary between them", field="campaign"
            )
        starts = vectors[[rows[start] for start, _ in pairs]]
        ends = vectors[[rows[end] for _, end in pairs]]
        points = boundary(starts, ends, lambda points: self._minds(plan, points))
        return self._real(plan, points, pairs)

    def _minds(self, plan: Plan, vectors: Vectors) -> list[Hashable]:
        judged = judge(self._learner, plan.spec.name, vectors=vectors)
        return [predicted(plan.spec.task, row) for row in judged.probabilities]

    def _ends(self, plan: Plan, pairs: Sequence[Pair]) -> tuple[Vectors, Vectors, list[Pair]]:
        ids = list(dict.fromkeys(item for pair in pairs for item in pair))
        rows, vectors = _with_vectors(self._read(plan, ids, vectors=True))
        there = [pair for pair in pairs if pair[0] in rows and pair[1] in rows]
        if not there:
            raise FailedPrecondition("the pool no longer has the labelled items", field="campaign")
        starts = vectors[[rows[start] for start, _ in there]]
        return starts, vectors[[rows[end] for _, end in there]], there

    def _real(self, plan: Plan, points: Vectors, pairs: Sequence[Pair]) -> Made:
        found = nearest_items(self._index, plan.spec.pool, points, exclude=plan.taken)
        if not found:
            return Made(items=[])
        told = self._read(plan, [one.item_id for one in found], vectors=False)
        texts = {item: payload.text for item, payload in _with_payloads(told)}
        return Made(
            items=[
                stream_pb2.SyntheticItem(
                    item_id=one.item_id,
                    method=plan.method,
                    sources=pairs[one.point],
                    real=True,
                    distance=one.distance,
                    text=texts[one.item_id],
                )
                for one in found
                if one.item_id in texts  # it may have left the pool since
            ]
        )

    def _from_texts(self, plan: Plan) -> Made:
        intake = open_intake(self._index, plan.spec)
        found = self._read(plan, plan.some_sources(SOURCES), vectors=False)
        texts = {item: payload.text for item, payload in _with_payloads(found) if payload.text.strip()}
        if not texts:
            raise FailedPrecondition("no labelled item has a text to make others from", field="campaign")
        made = self._texts(plan, texts)
        if not made:
            return Made(items=[])
        new = Items(
            ids=list(made),
            vectors=embed_for_pool(self._learner, intake, plan.encoder, [text for _, text in made.values()]),
            payloads=[
                Payload(text=text, metadata={"sealpool_origin": plan.method_name, "sealpool_sources": [source]})
                for source, text in made.values()
            ],
        )
        items = [
            stream_pb2.SyntheticItem(item_id=item, method=plan.method, sources=[source], text=text)
            for item, (source, text) in made.items()
        ]
        return Made(items=items, new=new)

    def _texts(self, plan: Plan, texts: Mapping[ItemId, str]) -> dict[ItemId, tuple[ItemId, str]]:
        """Return up to `plan.count` sources with what was made of them, by the ids that those are to have."""
        order = [list(texts)[row] for row in plan.randomness().permutation(len(texts))]
        variants = range(PASSES * max(1, -(-plan.count // len(order))))
        tries = (Wanted(source=one, text=texts[one], variant=variant) for variant in variants for one in order)
        is_paid = plan.method == stream_pb2.SYNTHESIS_METHOD_PARAPHRASE
        made: dict[ItemId, tuple[ItemId, str]] = {}
        tried = 0
        while len(made) < plan.count:
            some = list(islice(tries, plan.count - len(made) if is_paid else plan.count))
            if not some:
                break
            made.update(self._fresh(plan, zip(some, self._variants(plan, some, tried), strict=True)))
            tried += len(some)
        return dict(islice(made.items(), plan.count))

    def _variants(self, plan: Plan, wanted: Sequence[Wanted], start: int) -> list[str]:
        if plan.method == stream_pb2.SYNTHESIS_METHOD_PARAPHRASE:
            return self._paraphraser.paraphrase(plan.spec.name, wanted, endpoint=plan.endpoint, model=plan.model)
        seeds = np.random.default_rng([plan.seed % 2**63, start]).integers(2**32, size=len(wanted))
        changes = [
            # All kinds over the sources, and over the variants of one.
            Change(text=one.text, kind=(start + row + one.variant) % CHANGES, seed=int(seed))
            for row, (one, seed) in enumerate(zip(wanted, seeds, strict=True))
        ]
        return augment(changes)

    def _fresh(self, plan: Plan, made: Iterable[tuple[Wanted, str]]) -> dict[ItemId, tuple[ItemId, str]]:
        """Return what differs from its source, fits into the pool and was not made before, by the ids it gets."""
        ids = {
            made_id(plan.method_name, one.source, text): (one.source, text)
            for one, text in made
            if text.strip() and text != one.text and len(text.encode()) <= MAX_TEXT_BYTES
        }
        with self._store.reading() as session:
            known = synthetic.known(session, plan.campaign_id, list(ids))
        return {item: pair for item, pair in ids.items() if item not in known}

    def _read(self, plan: Plan, ids: Sequence[ItemId], *, vectors: bool) -> Items:
        """Return those of `ids` that the pool still has, with vectors (n, d) or payloads."""
        with asking("the index server"):
            found = self._index.get_items(
                plan.spec.pool, ids, vectors=vectors, payloads=not vectors, allow_missing=True
            )
        if not len(found):
            raise FailedPrecondition("the pool no longer has the labelled items", field="campaign")
        return found


def _with_vectors(found: Items) -> tuple[dict[ItemId, int], Vectors]:
    """Return the row of each item, and the vectors (n, d)."""
    if found.vectors is None:
        raise AssertionError("items came without vectors")
    return {item: row for row, item in enumerate(found.ids)}, found.vectors


def _with_payloads(found: Items) -> Iterator[tuple[ItemId, Payload]]:
    return zip(found.ids, found.payloads or (), strict=True)
