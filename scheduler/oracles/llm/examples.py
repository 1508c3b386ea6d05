"""Labelled items that are shown beside the one in question: the nearest by vector."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scheduler.oracles.llm.questions import EXAMPLE_CHARACTERS, Example
from scheduler.ports import Index
from sealpool.types import ItemId, Items, Vectors
from sealpool.v1 import scheduler_pb2

MAX_COMPARED = 2_000
"""Labelled items compared at most: their vectors are held in memory, 6 MB at 384 dimensions."""


class Nearest:
    """The nearest labelled items, exactly, among all or among `MAX_COMPARED` that are drawn by a hash.

    They are compared here. The index server, asked for the neighbours of an item, answers from the whole pool, in
    which a few hundred labelled items may lie anywhere: filtering would take a k of the order of the pool.

    Each item is compared on its own and in float64, and equals are ordered as labelled, so that which other items
    are asked about at once changes nothing: a question asked again is the same question.

    Parameters
    ----------
    labels
        Class indices of labelled items, in the order labelled.
    """

    def __init__(
        self, index: Index, spec: scheduler_pb2.CampaignSpec, labels: Mapping[ItemId, tuple[int, ...]], *, count: int
    ) -> None:
        self._index = index
        self._spec = spec
        self._labels = labels
        self._count = count
        ids = _drawn(spec.seed, list(labels)) if count else []
        found = index.get_items(spec.pool, ids, vectors=True, allow_missing=True) if ids else Items(ids=[])
        self._ids = found.ids
        self._directions = _unit(found.vectors) if found.vectors is not None else np.empty((0, 0))

    @property
    def needs_vectors(self) -> bool:
        """Whether the vectors of the items in question are looked at."""
        return bool(self._ids)

    def of(self, items: Items) -> Iterator[Sequence[Example]]:
        """Yield the examples for each item, nearest last, where models attend best; the item itself is left out."""
        if not self._ids or items.vectors is None:
            yield from ([] for _ in items.ids)
            return
        chosen = [self._nearest(item, each) for item, each in zip(items.ids, _unit(items.vectors), strict=True)]
        texts = self._texts(sorted({item for some in chosen for item in some}))
        for some in chosen:
            yield [self._example(item, texts[item]) for item in reversed(some) if texts.get(item)]

    def _nearest(self, item: ItemId, direction: NDArray[np.float64]) -> list[ItemId]:
        order = np.argsort(-(self._directions @ direction), kind="stable")[: self._count + 1]
        return [self._ids[row] for row in order if self._ids[row] != item][: self._count]

    def _texts(self, ids: Sequence[ItemId]) -> dict[ItemId, str]:
        found = self._index.get_items(self._spec.pool, ids, vectors=False, payloads=True, allow_missing=True)
        # One character more than is shown, so that a cut shows.
        texts = [payload.text[: EXAMPLE_CHARACTERS + 1] for payload in found.payloads or ()]
        return dict(zip(found.ids, texts, strict=True))

    def _example(self, item: ItemId, text: str) -> Example:
        return Example(text=text, classes=[self._spec.classes[index] for index in self._labels[item]])


def _drawn(seed: int, ids: Sequence[ItemId]) -> Sequence[ItemId]:
    if len(ids) <= MAX_COMPARED:
        return ids
    # By a hash of each: from round to round almost the same ones are drawn.
    drawn = set(sorted(ids, key=lambda item: hashlib.sha256(f"{seed}:{item}".encode()).digest())[:MAX_COMPARED])
    return [item for item in ids if item in drawn]


def _unit(vectors: Vectors) -> NDArray[np.float64]:
    """Return (n, d) vectors at length 1; zeros stay."""
    wide = np.asarray(vectors, np.float64)
    lengths = np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return np.asarray(wide / lengths)
