"""What posterior samples say of the labels of a batch together."""

import numpy as np
import torch

MOST_CONFIGURATIONS = 10_000
"""Joint labellings of a batch that are told apart; past it they are sampled."""

SAMPLED_CONFIGURATIONS = 2_000

_CHUNK_NUMBERS = 1 << 22  # float64: 32 MB a temporary
_NEGLIGIBLE = 1e-14  # nats, what a configuration left out could add to any gain


class JointEntropy:
    """The distribution of a batch's labels, grown by one item at a time.

    A configuration is one labelling ŷ of the whole batch. Kept of it are its weight ω and the posterior over the K
    samples that it leads to, p(k | ŷ) ∝ Π_j p_k(ŷ_j). What one more item adds to the mutual information of labels and
    samples is

        Σ_ŷ ω(ŷ) [H(Σ_k p(k | ŷ) p_k(y)) − Σ_k p(k | ŷ) H(p_k(y))],

    H(Y, y) − H(Y) − E_k[H(y | k)] put together configuration by configuration. With ω(ŷ) = p(ŷ) over all of them it is
    exact. Where there would be more than `most`, `sampled` are drawn instead (Kirsch, van Amersfoort and Gal, NeurIPS
    2019, §3.2, draw them by p(ŷ)): by systematic resampling in proportion to p(ŷ) H(k | ŷ), the most that a
    configuration can add, and weighted so that the estimate stays unbiased. A configuration that tells the samples
    apart already adds nothing, so most of the paper's draws are spent in vain, and its estimate can exceed log K.
    Float64, because products of probabilities fall fast.

    Parameters
    ----------
    samples
        K.
    """

    def __init__(
        self,
        samples: int,
        *,
        seed: int,
        device: torch.device,
        most: int = MOST_CONFIGURATIONS,
        sampled: int = SAMPLED_CONFIGURATIONS,
    ) -> None:
        self._posteriors = torch.full((1, samples), 1 / samples, dtype=torch.float64, device=device)
        self._weights = torch.ones(1, dtype=torch.float64, device=device)
        self._random = np.random.default_rng(seed)
        self._most, self._sampled = most, sampled
        self._merged = [(self._weights, self._posteriors)] * 2
        self.exact = True

    def __len__(self) -> int:
        """Return the number of configurations."""
        return len(self._weights)

    def gains(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return what each of some items with probabilities (K, r, c) adds, (r,) float64 of at least 0, in nats."""
        return _information(self._weights, self._posteriors, probabilities)

    def bounds(self, probabilities: torch.Tensor, likeliest: int) -> torch.Tensor:
        """Return upper bounds (r,) of `gains`, for a small part of their cost.

        Configurations with the same `likeliest` (1 or 2) samples are taken together: entropy is concave, so who forgets
        which of them came to be can only have more to learn.
        """
        return _information(*self._merged[likeliest - 1], probabilities)

    def add(self, probabilities: torch.Tensor) -> None:
        """Let the batch grow by an item with probabilities (K, c)."""
        columns = probabilities.to(torch.float64).T
        classes, samples = columns.shape
        step = max(1, _CHUNK_NUMBERS // (classes * samples))
        pieces = [self._grown(slice(start, start + step), columns) for start in range(0, max(1, len(self)), step)]
        weights = torch.cat([weight for weight, _ in pieces])
        most_added = torch.cat([most for _, most in pieces])
        kept = torch.nonzero(most_added > _NEGLIGIBLE)[:, 0]
        if len(kept) > (self._most if self.exact else self._sampled):
            self.exact = False
            kept, weights = self._draw(kept, weights, most_added)
        before, label = torch.div(kept, classes, rounding_mode="floor"), kept % classes
        posteriors = self._posteriors[before] * columns[label]
        self._posteriors = posteriors / posteriors.sum(dim=1, keepdim=True)
        self._weights = weights if len(weights) == len(kept) else weights[kept]
        self._merged = [_merge(self._weights, self._posteriors, likeliest) for likeliest in (1, 2)]

    def _grown(self, some: slice, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weights of some configurations with each label added, and the most that each can add."""
        posteriors = self._posteriors[some, None, :] * columns
        chances = posteriors.sum(dim=2)
        posteriors /= chances.clamp_min(1e-300)[:, :, None]
        weights = self._weights[some, None] * chances
        return weights.reshape(-1), (weights * -_plogp(posteriors).sum(dim=2)).reshape(-1)

    def _draw(
        self, kept: torch.Tensor, weights: torch.Tensor, most_added: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which configurations are drawn, as often as they are, and the weight of each draw."""
        ends = most_added[kept].cumsum(dim=0)
        steps = torch.arange(self._sampled, dtype=torch.float64, device=ends.device) + self._random.random()
        places = torch.searchsorted(ends, steps * (ends[-1] / self._sampled), right=True)
        drawn = kept[places.clamp_max(len(kept) - 1)]
        return drawn, weights[drawn] * ends[-1] / (self._sampled * most_added[drawn])


def label_information(probabilities: torch.Tensor) -> torch.Tensor:
    """Return I(y; k) (n,) float64 in nats, BALD's score, of items with probabilities (K, n, c)."""
    samples, items, classes = probabilities.shape
    pieces = [torch.empty(0, dtype=torch.float64, device=probabilities.device)]
    step = max(1, _CHUNK_NUMBERS // (samples * classes))
    for start in range(0, items, step):
        some = probabilities[:, start : start + step].to(torch.float64)
        pieces.append((_plogp(some).sum(dim=2).mean(dim=0) - _plogp(some.mean(dim=0)).sum(dim=1)).clamp_min_(0))
    return torch.cat(pieces)


def _information(weights: torch.Tensor, posteriors: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """Return Σ_ŷ ω(ŷ) I(y; k | ŷ), (r,), of configurations and of items with probabilities (K, r, c)."""
    samples, items, classes = probabilities.shape
    flat = probabilities.to(torch.float64).reshape(samples, items * classes)
    total = torch.zeros(items * classes, dtype=torch.float64, device=flat.device)
    step = max(1, _CHUNK_NUMBERS // max(1, items * classes))
    for start in range(0, len(weights), step):
        of_labels = posteriors[start : start + step] @ flat
        total += weights[start : start + step] @ _plogp(of_labels)
    total -= (weights @ posteriors) @ _plogp(flat)
    return total.view(items, classes).sum(dim=1).neg_().clamp_min_(0)


def _merge(weights: torch.Tensor, posteriors: torch.Tensor, likeliest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return configurations with those of the same `likeliest` samples made one."""
    samples = posteriors.shape[1]
    first = posteriors.topk(min(likeliest, samples), dim=1).indices
    groups, place = torch.unique(first[:, 0] * samples + first[:, -1], return_inverse=True)
    merged = torch.zeros(len(groups), samples, dtype=torch.float64, device=weights.device)
    merged.index_add_(0, place, posteriors * weights[:, None])
    totals = merged.sum(dim=1)
    return totals, merged / totals[:, None]


def _plogp(p: torch.Tensor) -> torch.Tensor:
    """Return p log p, 0 for 0: 1.6 times as fast as torch.special.entr."""
    return torch.log(p.clamp_min(1e-300)).mul_(p)
