"""How items are made, or found, by each method."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.asking import asking
from scheduler.ports import Index, Learner
from scheduler.storage import synthetic
from scheduler.storage.store import Store
from scheduler.streams.incoming import embed_for_pool, open_intake
from scheduler.streams.judging import judge, predicted
from scheduler.synthesis.augmenting import CHANGES, Change, augment
from scheduler.synthesis.nearest import nearest_items
from scheduler.synthesis.origin import made_id
from scheduler.synthesis.paraphrasing import Paraphraser, Wanted
from scheduler.synthesis.plan import Plan
from scheduler.synthesis.points import Pair, between, boundary, differing_pairs
from sealpool.errors import FailedPrecondition
from sealpool.types import ItemId, Items, Payload, Vectors
from sealpool.v1 import stream_pb2
from sealpool.validation import MAX_TEXT_BYTES

ITEMS_A_CALL = 1_000
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
        ids, vectors, _ = self._read(plan, list(plan.sources))
        minds = dict(zip(ids, self._minds(plan, vectors), strict=True))
        pairs = differing_pairs(minds, plan.count, randomness=plan.randomness())
        if not pairs:
            raise FailedPrecondition(
                "the model says the same of all labelled items: there is no boundary between them", field="campaign"
            )
        rows = {item: row for row, item in enumerate(ids)}
        starts = vectors[[rows[start] for start, _ in pairs]]
        ends = vectors[[rows[end] for _, end in pairs]]
        points = boundary(starts, ends, lambda points: self._minds(plan, points))
        return self._real(plan, points, pairs)

    def _minds(self, plan: Plan, vectors: Vectors) -> list[Hashable]:
        judged = judge(self._learner, plan.spec.name, vectors=vectors)
        return [predicted(plan.spec.task, row) for row in judged.probabilities]

    def _ends(self, plan: Plan, pairs: Sequence[Pair]) -> tuple[Vectors, Vectors, list[Pair]]:
        ids, vectors, _ = self._read(plan, list(dict.fromkeys(item for pair in pairs for item in pair)))
        rows = {item: row for row, item in enumerate(ids)}
        there = [pair for pair in pairs if pair[0] in rows and pair[1] in rows]
        if not there:
            raise FailedPrecondition("the pool no longer has the labelled items", field="campaign")
        starts = vectors[[rows[start] for start, _ in there]]
        return starts, vectors[[rows[end] for _, end in there]], there

    def _real(self, plan: Plan, points: Vectors, pairs: Sequence[Pair]) -> Made:
        found = nearest_items(self._index, plan.spec.pool, points, exclude=plan.taken)
        _, _, payloads = self._read(plan, [one.item_id for one in found]) if found else ((), None, ())
        return Made(
            items=[
                stream_pb2.SyntheticItem(
                    item_id=one.item_id,
                    method=plan.method,
                    sources=pairs[one.point],
                    real=True,
                    distance=one.distance,
                    text=payload.text,
                )
                for one, payload in zip(found, payloads, strict=True)
            ]
        )

    def _from_texts(self, plan: Plan) -> Made:
        intake = open_intake(self._index, plan.spec)
        ids, _, payloads = self._read(plan, list(plan.sources))
        texts = {item: payload.text for item, payload in zip(ids, payloads, strict=True) if payload.text.strip()}
        if not texts:
            raise FailedPrecondition("no labelled item has a text to make others from", field="campaign")
        made: dict[ItemId, tuple[ItemId, str]] = {}
        for source, text in self._texts(plan, texts):
            item = made_id(plan.method_name, source, text)
            if item not in made and len(text.encode()) <= MAX_TEXT_BYTES:
                made[item] = (source, text)
            if len(made) == plan.count:
                break
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

    def _texts(self, plan: Plan, texts: Mapping[ItemId, str]) -> Iterator[tuple[ItemId, str]]:
        """Yield sources and what was made of them, of texts that differ from the source and were not made before."""
        order = [list(texts)[row] for row in plan.randomness().permutation(len(texts))]
        variants = range(PASSES * max(1, -(-plan.count // len(order))))
        tries = [Wanted(source=one, text=texts[one], variant=variant) for variant in variants for one in order]
        for start in range(0, len(tries), plan.count):
            some = tries[start : start + plan.count]
            made = zip([one.source for one in some], self._variants(plan, some, start), strict=True)
            for source, text in self._fresh(plan, made):
                if text.strip() and text != texts[source]:
                    yield source, text

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

    def _fresh(self, plan: Plan, made: Iterator[tuple[ItemId, str]]) -> list[tuple[ItemId, str]]:
        ids = {made_id(plan.method_name, source, text): (source, text) for source, text in made}
        with self._store.reading() as session:
            known = synthetic.known(session, plan.campaign_id, list(ids))
        return [pair for item, pair in ids.items() if item not in known]

    def _read(self, plan: Plan, ids: Sequence[ItemId]) -> tuple[list[ItemId], Vectors, list[Payload]]:
        """Return those of `ids` that the pool still has, with vectors (n, d) and payloads."""
        with asking("the index server"):
            found = self._index.get_items(plan.spec.pool, ids, vectors=True, payloads=True, allow_missing=True)
        if not len(found) or found.vectors is None:
            raise FailedPrecondition("the pool no longer has the labelled items", field="campaign")
        return list(found.ids), found.vectors, list(found.payloads or ())
