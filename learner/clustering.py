"""k-means on the device: of vectors in memory, or of all candidates in one pass over them."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learner.ports import CandidateView, ScoringContext

Heartbeat = Callable[[], object]
"""Called between steps of at most some tenths of a second; raises Cancelled when the caller has left."""

POINTS_A_CENTRE = 256
"""More do not move the centres of the view by more than its noise; what FAISS trains on, too."""

_LEAST_POINTS_A_CENTRE = 40
_FIRST_POINTS_A_CENTRE = 32
_SEEDING_POINTS_A_CENTRE = 16
_ITERATIONS = 25
_LAST_ITERATIONS = 4
_TOLERANCE = 1e-4
_NOISE = 1e-6
_BLOCK_BYTES = 8 << 20
_SAMPLE_BYTES = 64 << 20
_FETCH_ROWS = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class Clusters:
    """Vectors in groups.

    A cluster is empty only where there are fewer distinct vectors than clusters, or where the centres were found on a
    sample and lie elsewhere than the rest.

    Parameters
    ----------
    centres
        (k, d) float32 on the device.
    assignment
        (n,) the cluster of each vector, that whose centre is nearest.
    squared_distances
        (n,) Euclidean, of each vector to its centre.
    """

    centres: torch.Tensor
    assignment: NDArray[np.int64]
    squared_distances: NDArray[np.float32]


def nothing() -> None:
    """Be a heartbeat that nobody listens to."""


def k_means(vectors: torch.Tensor, clusters: int, *, seed: int, heartbeat: Heartbeat = nothing) -> Clusters:
    """Group vectors, as they are, by Euclidean distance: k-means++, then Lloyd's iterations.

    Arthur and Vassilvitskii, SODA 2007; Lloyd, IEEE Transactions on Information Theory 28 (1982). The first centres are
    drawn from 16 vectors a centre. 25 iterations at most, until the sum of squared distances falls by less than 1e-4 of
    itself, are made on 32 vectors a centre; where there are more, 4 at most follow on them all (on 131 a centre of a
    Gaussian mixture, a sum 0.2 % above that of 25 on them all). A centre that no vector is nearest to moves to the
    vector farthest from its own. Cost: O(n·k·d) an iteration, in blocks of 8 MB.

    Parameters
    ----------
    vectors
        (n, d) float32.
    clusters
        How many, at least 1; no more than n are made.
    seed
        Of the first centres.
    heartbeat
        Called between steps.
    """
    count = min(clusters, len(vectors))
    if count == 0:
        return Clusters(
            centres=vectors[:0].float(), assignment=np.empty(0, np.int64), squared_distances=np.empty(0, np.float32)
        )
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(vectors))[: _FIRST_POINTS_A_CENTRE * count]
    first = vectors[torch.from_numpy(order).to(vectors.device)]
    centres = _seed_centres(first[: _SEEDING_POINTS_A_CENTRE * count], count, generator, heartbeat)
    if len(first) < len(vectors):
        centres = _lloyd(first, centres, _ITERATIONS, heartbeat)
        centres = _lloyd(vectors, centres, _LAST_ITERATIONS, heartbeat)
    else:
        centres = _lloyd(vectors, centres, _ITERATIONS, heartbeat)
    assignment, distances = assign(vectors, centres, heartbeat)
    return Clusters(centres=centres, assignment=assignment.cpu().numpy(), squared_distances=distances.cpu().numpy())


def cluster_view(view: CandidateView, clusters: int, *, seed: int) -> Clusters:
    """Group all candidates, at unit length, by Euclidean distance, which orders them as cosine similarity does.

    A zero vector stays one. The centres, means of unit vectors, are found on a sample of at most POINTS_A_CENTRE a
    centre, fewer where the sample would be more than 64 MB and more than a fifth of the candidates, but no fewer than
    40; then one pass over the view. Cost: O(n·k·d).
    """
    centres = view_centres(view, clusters, seed=seed)
    assignment, distances = np.empty(len(view), np.int64), np.empty(len(view), np.float32)
    for rows, block in view.blocks():
        nearest, away = assign(unit_vectors(block), centres)
        assignment[rows], distances[rows] = nearest.cpu().numpy(), away.cpu().numpy()
    return Clusters(centres=centres, assignment=assignment, squared_distances=distances)


def view_centres(view: CandidateView, clusters: int, *, seed: int) -> torch.Tensor:
    """Return the centres (k, d) of `cluster_view`, without the pass over the view."""
    sample = fetch_units(view, sample_rows(view, clusters, seed=seed))
    return k_means(sample, clusters, seed=seed, heartbeat=lambda: still_wanted(view)).centres


def sample_rows(view: CandidateView, clusters: int, *, seed: int) -> NDArray[np.int64]:
    """Return the rows, ascending, that centres are found on."""
    count = len(view)
    if count == 0:
        return np.empty(0, np.int64)
    dimension = view.at(np.zeros(1, np.int64)).vectors.shape[1]
    room = max(count // 5, _SAMPLE_BYTES // max(1, 4 * dimension), _LEAST_POINTS_A_CENTRE * clusters)
    size = min(count, POINTS_A_CENTRE * clusters, room)
    return np.sort(np.random.default_rng(seed).choice(count, size, replace=False)).astype(np.int64)


def still_wanted(view: CandidateView) -> None:
    """Raise Cancelled when the caller has left."""
    view.at(np.empty(0, np.int64))


def fetch_units(view: CandidateView, rows: NDArray[np.int64]) -> torch.Tensor:
    """Return the vectors (r, d) of some rows at unit length, fetched a few thousand at a time."""
    units = unit_vectors(view.at(rows[:_FETCH_ROWS]))
    if len(units) == len(rows):
        return units
    found = units.new_empty(len(rows), units.shape[1])  # never twice: they may be many
    found[:_FETCH_ROWS] = units
    for at in range(_FETCH_ROWS, len(rows), _FETCH_ROWS):
        found[at : at + _FETCH_ROWS] = unit_vectors(view.at(rows[at : at + _FETCH_ROWS]))
    return found


def unit_vectors(context: ScoringContext) -> torch.Tensor:
    """Return the candidates' vectors (n, d) at unit length; zero vectors stay."""
    return context.vectors.float() * context.inverse_lengths.float()[:, None]


def assign(
    vectors: torch.Tensor, centres: torch.Tensor, heartbeat: Heartbeat = nothing
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest centre (n,) int64 of each vector, and the squared distance (n,) float32.

    The nearest is found by a matrix product; its distance is then taken from the difference, because what is left of
    two long vectors' product has lost its last digits.
    """
    nearest, distances = _nearest(vectors, centres, heartbeat)
    step = max(1, _BLOCK_BYTES // (4 * max(1, vectors.shape[1])))
    for at in range(0, len(vectors), step):
        rows = slice(at, at + step)
        distances[rows] = (vectors[rows] - centres[nearest[rows]]).square_().sum(dim=1)
    return nearest, distances


def _nearest(vectors: torch.Tensor, centres: torch.Tensor, heartbeat: Heartbeat) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest centre (n,) of each vector, and half its squared distance less half the vector's square."""
    half_squares = centres.square().sum(dim=1) / 2
    nearest = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
    halves = torch.empty(len(vectors), dtype=torch.float32, device=vectors.device)
    step = max(1, _BLOCK_BYTES // (4 * len(centres)))
    for at in range(0, len(vectors), step):
        heartbeat()
        rows = slice(at, at + step)
        least = torch.addmm(half_squares, vectors[rows], centres.T, alpha=-1).min(dim=1)
        nearest[rows], halves[rows] = least.indices, least.values
    return nearest, halves


def _lloyd(vectors: torch.Tensor, centres: torch.Tensor, iterations: int, heartbeat: Heartbeat) -> torch.Tensor:
    """Return the centres after the last iteration."""
    half_squares = vectors.square().sum(dim=1) / 2
    nearest, halves = _nearest(vectors, centres, heartbeat)
    halves += half_squares
    for _ in range(iterations):
        before = halves.sum(dtype=torch.float64).item()
        centres = _moved(vectors, centres, nearest, halves)
        nearest, halves = _nearest(vectors, centres, heartbeat)
        halves += half_squares
        if before - halves.sum(dtype=torch.float64).item() <= _TOLERANCE * before:
            break
    return centres


def _seed_centres(
    sample: torch.Tensor, count: int, generator: np.random.Generator, heartbeat: Heartbeat
) -> torch.Tensor:
    """Draw `count` vectors by k-means++ from a sample: each with probability in proportion to its squared distance.

    Of 2 + ln k draws a centre the one that lowers the sum of squared distances most, as its authors advise: one draw
    leaves some of six far groups without a centre every few seeds.
    """
    squares = sample.square().sum(dim=1)
    chosen = np.zeros(count, np.int64)  # the sample is in random order, so its first vector is a uniform draw
    distances = _squared_distances(sample, squares, chosen[:1])[0]
    for number, shares in enumerate(generator.random((count - 1, 2 + int(np.log(count)))), start=1):
        heartbeat()
        drawn = _drawn(distances.cpu().numpy(), chosen[:number], shares)
        lowered = torch.minimum(_squared_distances(sample, squares, drawn), distances)
        best = int(lowered.sum(dim=1).argmin())
        chosen[number], distances = drawn[best], lowered[best]
    return sample[torch.from_numpy(chosen).to(sample.device)].clone()


def _squared_distances(sample: torch.Tensor, squares: torch.Tensor, centres: NDArray[np.int64]) -> torch.Tensor:
    """Return the squared distances (k, n) of all to k of them; 0 where they are too small to tell by a product."""
    places = torch.from_numpy(centres).to(sample.device)
    reach = squares + squares[places, None]
    distances = torch.addmm(reach, sample[places], sample.T, alpha=-2)
    return torch.where(distances > _NOISE * reach, distances, 0.0)


def _drawn(weights: NDArray[np.float32], chosen: NDArray[np.int64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return positions drawn in proportion to their weights; where all are 0, the first that is not chosen."""
    sums = np.cumsum(weights, dtype=np.float64)
    if sums[-1] <= sys.float_info.min:
        return np.setdiff1d(np.arange(len(weights)), chosen)[:1]
    places: NDArray[np.int64] = np.searchsorted(sums, shares * sums[-1], side="right")
    return places.clip(max=int(np.flatnonzero(weights)[-1]))


def _moved(
    vectors: torch.Tensor, centres: torch.Tensor, assignment: torch.Tensor, distances: torch.Tensor
) -> torch.Tensor:
    """Return the mean of each cluster's vectors; for an empty one, a vector far from its own centre."""
    sizes = torch.bincount(assignment, minlength=len(centres))
    moved = _sums(vectors, assignment, len(centres)) / sizes.clamp_min(1)[:, None]
    empty = np.flatnonzero(sizes.cpu().numpy() == 0)
    if len(empty):
        farthest = np.argsort(-distances.cpu().numpy(), kind="stable")[: len(empty)]
        moved[torch.from_numpy(empty).to(moved.device)] = vectors[torch.from_numpy(farthest).to(moved.device)]
    return moved


def _sums(vectors: torch.Tensor, assignment: torch.Tensor, count: int) -> torch.Tensor:
    """Return the sum (k, d) of each cluster's vectors, the same each time.

    On CUDA, adding in place by index is not (atomic additions in any order), so it is a product with indicators there.
    """
    sums = torch.zeros(count, vectors.shape[1], dtype=torch.float32, device=vectors.device)
    if vectors.device.type == "cpu":
        return sums.index_add_(0, assignment, vectors)
    numbers = torch.arange(count, device=vectors.device)
    step = max(1, _BLOCK_BYTES // (4 * count))
    for at in range(0, len(vectors), step):
        indicators = (assignment[None, at : at + step] == numbers[:, None]).float()
        sums += indicators @ vectors[at : at + step]
    return sums
