"""Items drawn at random from a pool."""

from collections.abc import Sequence

from scheduler.domain.origin import is_made
from scheduler.ports import Index
from sealpool.types import ItemId

_DRAWS = 20


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
