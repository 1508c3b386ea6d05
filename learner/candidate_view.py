"""All candidates that may be picked, as strategies that pick a batch as a whole see them."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from learner.contexts import Lens, in_unit_interval, make_context
from learner.draws import draws_of
from learner.ports import CancelCheck, LabelledView, ScoringContext
from learner.problem import Problem
from learner.sources import CandidateSource
from sealpool.errors import Cancelled


class View:
    """A learner.ports.CandidateView over the slots `allowed` (n,) of a source."""

    def __init__(
        self,
        lens: Lens,
        source: CandidateSource,
        allowed: NDArray[np.int64],
        *,
        block_rows: int,
        cancelled: CancelCheck,
    ) -> None:
        self._lens = lens
        self._source = source
        self._block_rows = block_rows
        self._cancelled = cancelled
        draws = draws_of(source.candidates.keys[allowed], lens.seed)
        order = np.argsort(draws, kind="stable")
        self._draws = in_unit_interval(draws[order])
        self.slots = allowed[order]
        """(n,) where row r lies in the source."""

    @property
    def problem(self) -> Problem:
        """The task and its classes."""
        return self._lens.problem

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""
        return self._lens.device

    @property
    def seed(self) -> int:
        """Of whatever the strategy draws."""
        return self._lens.seed

    @property
    def draws(self) -> NDArray[np.float64]:
        """(n,) in [0, 1), ascending."""
        return self._draws

    @property
    def labelled(self) -> LabelledView:
        """The labelled set."""
        if self._lens.labelled is None:
            raise AssertionError("a strategy that does not need labelled items asked for them")
        return self._lens.labelled

    def __len__(self) -> int:
        return len(self.slots)

    def blocks(self) -> Iterator[tuple[slice, ScoringContext]]:
        """Yield all candidates in blocks of consecutive rows."""
        for start in range(0, len(self), self._block_rows):
            rows = slice(start, min(start + self._block_rows, len(self)))
            yield rows, self._block(self.slots[rows])

    def at(self, rows: NDArray[np.int64]) -> ScoringContext:
        """Return the candidates in `rows` (r,), in that order."""
        return self._block(self.slots[rows])

    def _block(self, slots: NDArray[np.int64]) -> ScoringContext:
        if self._cancelled():
            raise Cancelled("the caller left while candidates were picked")
        return block_of(self._lens, self._source, slots, lambda: self._source.take(slots))


def block_of(
    lens: Lens,
    source: CandidateSource,
    slots: slice | NDArray[np.int64],
    vectors: Callable[[], torch.Tensor],
) -> ScoringContext:
    """Return the context of some slots, whose vectors are fetched as `vectors` says."""
    candidates = source.candidates
    texts = None
    if lens.reads_text:
        texts = candidates.texts[slots] if isinstance(slots, slice) else [candidates.texts[s] for s in slots.tolist()]
    return make_context(
        lens, vectors, texts=texts, inverse_lengths=candidates.inverse_lengths[slots], keys=candidates.keys[slots]
    )
