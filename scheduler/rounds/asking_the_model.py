"""What a round's model says of items of the pool."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scheduler.ports import Index, Learner
from scheduler.rounds.recording import RoundJob
from sealpool.errors import NotFound
from sealpool.types import ItemId

_TRIES = 3
_ITEMS_A_CALL = 20_000


def predict_items(
    index: Index, learner: Learner, job: RoundJob, items: Sequence[ItemId]
) -> tuple[list[ItemId], NDArray[np.float32]]:
    """Return those of `items` that the pool still has, in their order, and their class probabilities (n, c).

    Raises
    ------
    NotFound
        The model is gone, or items leave the pool again and again while it is asked.
    """
    for tried in range(1, _TRIES + 1):
        present = _present(index, job, items)
        try:
            return present, _probabilities(learner, job, present)
        except NotFound:  # an item may have left the pool in between
            if tried == _TRIES:
                raise
    raise AssertionError("the last try returns or raises")


def _present(index: Index, job: RoundJob, items: Sequence[ItemId]) -> list[ItemId]:
    if not items:
        return []
    return list(index.get_items(job.spec.pool, items, vectors=False, allow_missing=True).ids)


def _probabilities(learner: Learner, job: RoundJob, items: Sequence[ItemId]) -> NDArray[np.float32]:
    parts = [
        answer.probabilities
        for start in range(0, len(items), _ITEMS_A_CALL)
        for answer in learner.predict(job.campaign, round=job.number, ids=items[start : start + _ITEMS_A_CALL])
    ]
    return np.concatenate([np.empty((0, len(job.spec.classes)), np.float32), *parts])
