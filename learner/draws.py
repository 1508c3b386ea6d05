"""Random draws that belong to an item's id and a seed, wherever the item lies in a cache."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from sealpool.types import ItemId

Keys = NDArray[np.uint64]


def keys_of(ids: Iterable[ItemId]) -> Keys:
    """Return 64 bits of each id's BLAKE2b hash, (n,) uint64."""
    digests = b"".join(hashlib.blake2b(item_id.encode(), digest_size=8).digest() for item_id in ids)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def draws_of(keys: Keys, seed: int) -> Keys:
    """Return uniform 64-bit draws, (n,) uint64: a function of key and seed alone."""
    return _mix(keys ^ _mix(np.array([seed], np.uint64)))


def derived_seed(seed: int, purpose: int) -> int:
    """Return another seed for another purpose."""
    return int(draws_of(np.array([purpose], np.uint64), seed)[0])


def _mix(values: Keys) -> Keys:
    """Scramble 64-bit words; splitmix64's output function (Steele, Lea and Flood, OOPSLA 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
