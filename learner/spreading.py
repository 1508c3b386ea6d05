"""Labels spread over a graph (Zhou, Bousquet, Lal, Weston and Schölkopf, NeurIPS 2003): the arithmetic."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learner.ports import CancelCheck
from sealpool.errors import Cancelled

TOLERANCE = 1e-4
"""Where no item's share of a class changes by more, twice in a row, it ends: of a graph of two sides each moves every
other time."""
_QUIET = 2
_NOT_REACHED = -1.0
_LEAST_MASS = 1e-30
"""What is less has reached nothing: near the least float32 shares would no longer be exact, or sum to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """What reached each item.

    Parameters
    ----------
    shares
        (n, c) float32, each item's F divided by its mass; 0 where nothing reached it.
    mass
        (n,) float32, the sum of F over the classes of a single-label task.
    iterations
        How many it took.
    """

    shares: NDArray[np.float32]
    mass: NDArray[np.float32]
    iterations: int


def normalised_graph(
    rows: torch.Tensor, columns: torch.Tensor, weights: torch.Tensor, items: int, *, device: torch.device
) -> torch.Tensor:
    """Return S = D^−½·W·D^−½, (n, n) sparse CSR float32 on `device`.

    Edges (e,) go from `rows` to `columns`, and each at most once; W takes an edge both ways, with the larger weight
    where both directions are given. Edges of weight 0, and of an item to itself, are left out. An item without an edge
    has an empty row.
    """
    keep = (weights > 0) & (rows != columns)
    rows, columns, weights = rows[keep], columns[keep], weights[keep].float()
    keys = torch.cat([rows * items + columns, columns * items + rows])
    keys, order = keys.sort(stable=True)
    doubled = torch.cat([weights, weights])[order]
    del order
    first = torch.ones(len(keys), dtype=torch.bool)
    first[1:] = keys[1:] != keys[:-1]
    # A pair is there twice at most, side by side: the first of the two takes the larger weight.
    following = torch.zeros_like(doubled)
    following[:-1] = torch.where(first[1:], torch.zeros(()), doubled[1:])
    values = torch.maximum(doubled, following)[first]
    keys = keys[first]
    sources, targets = keys // items, keys % items
    degrees = torch.zeros(items, dtype=torch.float64).index_add_(0, sources, values.double())
    scale = torch.where(degrees > 0, degrees.clamp_min(1e-300).rsqrt(), torch.zeros((), dtype=torch.float64))
    values = (values.double() * scale[sources] * scale[targets]).float()
    starts = torch.zeros(items + 1, dtype=torch.int64)
    starts[1:] = torch.bincount(sources, minlength=items).cumsum(0)
    # 32-bit indices where they suffice: what MKL takes without a copy.
    kind = torch.int32 if len(keys) < 2**31 else torch.int64
    parts = (starts.to(device, kind), targets.to(device, kind), values.to(device))
    with warnings.catch_warnings():
        # Said once a process. Two threads here at once might leave the filter in place, which does no harm.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
        return torch.sparse_csr_tensor(*parts, (items, items), check_invariants=True)


def spread(
    graph: torch.Tensor,
    labelled: torch.Tensor,
    targets: torch.Tensor,
    *,
    multilabel: bool,
    alpha: float,
    max_iterations: int,
    cancelled: CancelCheck,
) -> Spread:
    """Iterate F ← α·S·F + (1 − α)·Y until no share changes by over 1e-4, twice in a row.

    Parameters
    ----------
    graph
        S, as `normalised_graph` makes it.
    labelled, targets
        (m,) int64 rows of the labelled items, distinct, and (m, c) float32 0 or 1: the rows of Y that are not 0.
    multilabel
        Each class is spread against its absence: Y would have a column for both. The absence's is not computed, as it
        is the mass less the class's.

    Raises
    ------
    Cancelled
        `cancelled` said so between two iterations.
    """
    items, classes = len(graph), targets.shape[1]
    given = torch.cat([targets, torch.ones_like(targets[:, :1])], dim=1) if multilabel else targets
    given = (1 - alpha) * given
    current = torch.zeros(items, given.shape[1], device=graph.device)
    current.index_copy_(0, labelled, given)
    shares = _shares(current, classes)
    done = quiet = 0
    while done < max_iterations and quiet < _QUIET:
        if cancelled():
            raise Cancelled("the caller left while labels were spread")
        current = (graph @ current).mul_(alpha)
        current.index_add_(0, labelled, given)
        done += 1
        new = _shares(current, classes)
        change = float(shares.sub_(new).abs_().amax())
        shares = new
        quiet = quiet + 1 if change <= TOLERANCE else 0
    shares.clamp_min_(0)
    mass = _mass(current, classes)
    mass = torch.where(mass > _LEAST_MASS, mass, torch.zeros((), device=mass.device))
    return Spread(shares=shares.cpu().numpy(), mass=mass.cpu().numpy(), iterations=done)


def _mass(current: torch.Tensor, classes: int) -> torch.Tensor:
    return current[:, classes] if current.shape[1] > classes else current.sum(dim=1)


def _shares(current: torch.Tensor, classes: int) -> torch.Tensor:
    mass = _mass(current, classes)[:, None]
    # Below any share where nothing came yet, so that being reached is a change also for a class with a share of 0.
    nothing = torch.full((), _NOT_REACHED, device=current.device)
    return torch.where(mass > _LEAST_MASS, current[:, :classes] / mass.clamp_min(_LEAST_MASS), nothing)
