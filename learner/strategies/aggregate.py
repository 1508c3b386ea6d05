"""How the scores of an item's labels become one, in a multi-label campaign."""

import torch

from learner.options import Aggregate


def aggregate_labels(scores: torch.Tensor, how: Aggregate) -> torch.Tensor:
    """Return (n,) from scores of each label (n, c): their mean, largest or smallest."""
    match how:
        case Aggregate.MEAN:
            return scores @ scores.new_full((scores.shape[1],), 1 / scores.shape[1])
        case Aggregate.MAX:
            return scores.amax(dim=1)
        case Aggregate.MIN:
            return scores.amin(dim=1)
