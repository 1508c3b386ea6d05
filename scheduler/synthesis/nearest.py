"""The real items nearest to points that were made."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.asking import asking
from scheduler.domain.origin import is_made
from scheduler.ports import Index
from sealpool.client import Neighbors
from sealpool.types import ItemId, Vectors

NEIGHBORS = 16
_SEARCHES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The item that stands for a point: a row of the points, and the cosine distance to it, 0 to 2."""

    point: int
    item_id: ItemId
    distance: float


def nearest_items(index: Index, pool: str, points: Vectors, *, exclude: Sequence[ItemId]) -> list[Found]:
    """Find an item for each point (n, d), each item once, the nearest pairs first.

    A point whose neighbours were all taken by nearer points is searched again; it stays without an item where the pool
    has no other left.
    """
    found: list[Found] = []
    waiting, out = list(range(len(points))), dict.fromkeys(exclude)
    for _ in range(_SEARCHES):
        with asking("the index server"):
            neighbors = index.search(
                pool, k=NEIGHBORS, vectors=points[waiting], exclude=list(out), include_vectors=True
            )
        found.extend(_assigned(points, waiting, neighbors))
        served = {one.point for one in found}
        waiting = [row for row in waiting if row not in served]
        if not waiting or not neighbors.ids:
            break
        # Made items among them are met once, and not again.
        out.update(dict.fromkeys(item for item in neighbors.ids if is_made(item)))
        out.update(dict.fromkeys(one.item_id for one in found))
    return found


def _assigned(points: Vectors, rows: Sequence[int], neighbors: Neighbors) -> list[Found]:
    offers: list[Found] = []
    owners = np.repeat(rows, neighbors.counts)
    vectors = neighbors.vectors if neighbors.vectors is not None else np.empty((0, points.shape[1]), np.float32)
    for row, item, vector in zip(owners.tolist(), neighbors.ids, vectors, strict=True):
        if not is_made(item):
            offers.append(Found(point=row, item_id=item, distance=cosine_distance(points[row], vector)))
    offers.sort(key=lambda offer: (offer.distance, offer.point, offer.item_id))
    chosen: dict[int, Found] = {}
    given: set[ItemId] = set()
    for offer in offers:
        if offer.point not in chosen and offer.item_id not in given:
            chosen[offer.point] = offer
            given.add(offer.item_id)
    return list(chosen.values())


def cosine_distance(one: Vectors, other: Vectors) -> float:
    """Return 1 − the cosine of two vectors (d,); 1 where one has no direction."""
    length = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    if length == 0:
        return 1.0
    return 1.0 - float(np.dot(one.astype(np.float64), other)) / length
