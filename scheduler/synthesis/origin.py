"""How made items are told from real ones: by their ids, in every pool and in every campaign."""

import hashlib
from collections.abc import Sequence

from scheduler.ports import Index
from sealpool.types import ItemId

PREFIX = "synthetic:"
_DRAWS = 20


def made_id(method: str, source: ItemId, text: str) -> ItemId:
    """Return the id of a text that was made from an item: the same for the same text."""
    return ItemId(PREFIX + hashlib.sha256(f"{method}\0{source}\0{text}".encode()).hexdigest()[:32])


def is_made(item: str) -> bool:
    """Whether an item was made."""
    return item.startswith(PREFIX)


def draw_real(index: Index, pool: str, count: int, *, seed: int, exclude: Sequence[ItemId] = ()) -> list[ItemId]:
    """Draw up to `count` items at random as `Index.sample_items` does, none of which was made.

    Made items are no sample of anything: what is measured on a draw, a held-out set or an audit, must not have them.
    """
    found: list[ItemId] = []
    out = list(exclude)
    for draw in range(_DRAWS):
        drawn = index.sample_items(pool, count - len(found), seed=(seed + draw) % 2**64, exclude=out)
        found.extend(item for item in drawn if not is_made(item))
        if len(found) == count or not drawn:
            break
        out.extend(drawn)
    return found
