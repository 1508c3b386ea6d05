"""How much of a pool any number of rounds could reach, following nearest neighbours."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index_server.ports import Rows

Neighbours = Callable[[Rows], Rows]
"""The k nearest neighbours of rows (n,): (n, k), −1 where there are fewer."""
_BLOCK_ROWS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Reachability:
    """The share of items that can be reached.

    Parameters
    ----------
    share
        Of the live items, those begun with included.
    standard_error
        Of sampling; 0 where exact.
    undecided_share
        The part of `share` that was taken for reachable without proof.
    """

    share: float
    standard_error: float
    exact: bool
    undecided_share: float = 0.0


def reachable_share(
    neighbours: Neighbours,
    *,
    live: Rows,
    seeds: Rows,
    max_searches: int,
    sample: int,
    max_backward: int,
    seed: int,
) -> Reachability:
    """Return how much of the `live` rows can be reached from `seeds`, which are some of them.

    Exact where at most `max_searches` rows have to be asked for their neighbours. Otherwise those reached so far count,
    and of the others `sample` are drawn without replacement. From each of them the way is followed backwards: to those
    of its own neighbours that have it among theirs, and on to theirs.

    - It meets what is reached: the item is reachable.
    - It ends before: the item counts as unreachable. Who has it as a neighbour without being one of its own is not
      found, so this errs towards unreachable.
    - It passes `max_backward` rows: the item counts as reachable, for large sets that lead into one another are
      usually one. This errs towards reachable where there are unreached islands of more items than that;
      `undecided_share` says how much rests on it.

    The standard error is that of drawing, with the correction for a finite population, and never below that of one
    item in `sample` + 2 (the rule of succession), as a sample of equals proves little. It knows nothing of the two
    errors above.

    Parameters
    ----------
    neighbours
        Asked for blocks of rows, at most `max_searches` forwards and then about `sample`·(`max_backward` + k)
        backwards.
    """
    forward = _Forward(neighbours, size=int(live.max(initial=-1)) + 1, seeds=seeds)
    forward.run(max_searches)
    reached = int(np.count_nonzero(forward.reached))
    if not len(live) or not len(forward.frontier):
        return Reachability(share=reached / len(live) if len(live) else 1.0, standard_error=0.0, exact=True)
    others = live[~forward.reached[live]]
    if not len(others):
        return Reachability(share=1.0, standard_error=0.0, exact=True)
    drawn = np.random.default_rng(seed).choice(others, min(sample, len(others)), replace=False)
    backward = _Backward(neighbours, forward.reached, max_rows=max_backward)
    verdicts = [backward.leads_from_reached(int(row)) for row in drawn]
    undecided = sum(verdict is None for verdict in verdicts)
    positive = undecided + sum(verdict is True for verdict in verdicts)
    weight = len(others) / len(live)
    return Reachability(
        share=reached / len(live) + weight * positive / len(drawn),
        standard_error=weight * _standard_error(positive, len(drawn), len(others)),
        exact=False,
        undecided_share=weight * undecided / len(drawn),
    )


def _standard_error(positive: int, drawn: int, population: int) -> float:
    if drawn == population:
        return 0.0
    share = (positive + 1) / (drawn + 2)
    correction = (population - drawn) / (population - 1)
    return float(np.sqrt(share * (1 - share) / drawn * correction))


class _Forward:
    """Breadth-first from the seeds."""

    def __init__(self, neighbours: Neighbours, *, size: int, seeds: Rows) -> None:
        self._neighbours = neighbours
        self.reached: NDArray[np.bool_] = np.zeros(size, np.bool_)
        self.reached[seeds] = True
        self.frontier = np.flatnonzero(self.reached)

    def run(self, max_searches: int) -> None:
        """Go on until nothing is new, or `max_searches` rows were asked for."""
        while len(self.frontier) and max_searches > 0:
            asked = self.frontier[: min(_BLOCK_ROWS, max_searches)]
            max_searches -= len(asked)
            found = np.unique(self._neighbours(asked))
            new = found[(found >= 0) & ~self.reached[found]]
            self.reached[new] = True
            self.frontier = np.concatenate([self.frontier[len(asked) :], new])


class _Backward:
    """From an item to those it can be reached from, as far as they are among each other's neighbours."""

    def __init__(self, neighbours: Neighbours, reached: NDArray[np.bool_], *, max_rows: int) -> None:
        self._ask = neighbours
        self._known: dict[int, Rows] = {}
        self._reached = reached
        self._max_rows = max_rows

    def leads_from_reached(self, row: int) -> bool | None:
        """Return whether `row` can be reached; None if that was not found out within the limit."""
        seen, waiting = {row}, deque([row])
        while waiting:
            for source in self._sources(waiting.popleft()):
                if self._reached[source]:
                    return True
                if source not in seen:
                    seen.add(source)
                    waiting.append(source)
            if len(seen) > self._max_rows:
                return None
        return False

    def _sources(self, row: int) -> list[int]:
        """Return the neighbours of `row` that have it among their own."""
        own = self._neighbours(np.array([row]))[0]
        own = own[own >= 0]
        return [int(other) for other, theirs in zip(own, self._neighbours(own), strict=True) if row in theirs]

    def _neighbours(self, rows: Rows) -> list[Rows]:
        unknown = np.array([row for row in rows.tolist() if row not in self._known], np.int64)
        if len(unknown):
            self._known.update(zip(unknown.tolist(), self._ask(unknown), strict=True))
        return [self._known[row] for row in rows.tolist()]
