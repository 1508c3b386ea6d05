"""Seeds of a campaign's random choices."""

import hashlib
from enum import StrEnum


class Purpose(StrEnum):
    """What a seed is for. The names are part of what makes a campaign repeatable: never rename one."""

    SAMPLE = "sample"
    TRAIN = "train"
    SELECT = "select"
    AUDIT = "audit"
    REVIEW = "review"
    EVALUATION = "evaluation"
    TEST_POOL = "test_pool"
    TEST_POINTS = "test_points"
    STOP_SET = "stop_set"


def derive_seed(campaign_seed: int, round_number: int, purpose: Purpose) -> int:
    """Return the seed, 0 to 2⁶⁴ − 1, of one purpose in one round.

    It is a hash, so that rounds and purposes are independent of each other, and the same on every machine and in
    every version of Python.
    """
    text = f"sealpool:{campaign_seed}:{round_number}:{purpose.value}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
