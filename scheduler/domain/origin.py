"""How made items are told from real ones: by their ids, in every pool and in every campaign."""

import hashlib

from sealpool.types import ItemId

PREFIX = "synthetic:"


def made_id(method: str, source: ItemId, text: str) -> ItemId:
    """Return the id of a text that was made from an item: the same for the same text."""
    return ItemId(PREFIX + hashlib.sha256(f"{method}\0{source}\0{text}".encode()).hexdigest()[:32])


def is_made(item: str) -> bool:
    """Whether an item was made."""
    return item.startswith(PREFIX)
