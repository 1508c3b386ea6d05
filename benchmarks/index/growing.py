"""One campaign's growth, called as the learner calls it, and the recall of what came."""

import itertools
from collections.abc import Callable
from typing import Final

from benchmarks.data import draws, ids_of
from benchmarks.in_process import exact_neighbors
from benchmarks.index.workbench import BATCH, NEIGHBORS, SEALS, LoadedPool
from benchmarks.statistics import median, recall
from sealpool.client import IndexClient

_CAMPAIGNS: Final = itertools.count()


class Growth:
    """Expands from BATCH new labels, each time in a new campaign.

    A first round brings the most: nothing is a candidate yet, so nearly every neighbour is new and its vector is sent.
    `repetition` chooses the labels; the same one again asks for the same neighbours in another campaign.
    """

    def __init__(self, client: IndexClient, loaded: LoadedPool, repetitions: int) -> None:
        self._client = client
        self._loaded = loaded
        # One more for the warm-up, which is repetition −1, the last.
        self._draws = draws(len(loaded.ids), BATCH, repetitions + 1)
        self.served: dict[int, set[str]] = {}

    def __call__(self, repetition: int) -> None:
        """Expand once; what was added is in `served`."""
        campaign = f"growth-{next(_CAMPAIGNS)}"
        labelled = ids_of(self._loaded.ids, self._draws[repetition])
        update = self._client.expand_candidates(self._loaded.name, campaign, labelled, policy=SEALS)
        self.served[repetition] = set(update.added.ids)

    def rows(self, repetition: int) -> list[int]:
        """Return the rows of the labels of a repetition."""
        return self._draws[repetition]

    def exact(self) -> Callable[[int], object]:
        """Return the same neighbours' exact search in this process, without anything after it."""
        vectors, index = self._loaded.vectors, self._loaded.exact
        return lambda repetition: index.search(vectors[self._draws[repetition]], NEIGHBORS)

    def recall(self, repetitions: int = 3) -> float:
        """Return the share of the exact answer that was served: the median of some repetitions."""
        return median([self._recall(repetition) for repetition in range(min(repetitions, len(self.served) - 1))])

    def _recall(self, repetition: int) -> float:
        rows = self._draws[repetition]
        nearest = exact_neighbors(self._loaded.exact, self._loaded.vectors, rows, NEIGHBORS)
        found: set[str] = {str(self._loaded.ids[row]) for row in nearest.ravel().tolist()}
        wanted = found.difference(ids_of(self._loaded.ids, rows))
        return recall(self.served[repetition], wanted)

    @property
    def added(self) -> float:
        """Candidates that a repetition brought, in the median."""
        return median([len(ids) for ids in self.served.values()])
