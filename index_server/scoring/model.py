"""A linear model as a caller sends it."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sealpool.errors import InvalidArgument
from sealpool.validation import check_vectors

MAX_CLASSES: Final = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearModel:
    """Logits x·wᵀ + b.

    Parameters
    ----------
    weights
        (c, d) float32, one row a class. A single row gives the logit of the second of two classes, unless multilabel.
    biases
        (c,) float32.
    multilabel
        Whether each row is a class of its own, that an item has or not.
    """

    weights: NDArray[np.float32]
    biases: NDArray[np.float32]
    multilabel: bool = False

    @property
    def binary(self) -> bool:
        """Whether one row decides between two classes."""
        return len(self.weights) == 1 and not self.multilabel

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return 2 if self.binary else len(self.weights)

    def check(self, dimension: int) -> None:
        """Raise InvalidArgument for `weights` or `biases` that do not fit each other or vectors of `dimension`."""
        rows = len(self.weights)
        if not 1 <= rows <= MAX_CLASSES:
            raise InvalidArgument("weights", f"has {rows:,} rows, not 1 to {MAX_CLASSES:,}")
        check_vectors("weights", self.weights, dimension=dimension)
        if self.biases.shape != (rows,):
            raise InvalidArgument(
                "biases", f"has shape {self.biases.shape}, not ({rows},): one for each row of weights"
            )
        if not np.isfinite(self.biases).all():
            raise InvalidArgument("biases", "holds NaN or infinity")
