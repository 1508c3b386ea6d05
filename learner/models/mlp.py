"""A multilayer perceptron on the items' vectors."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from learner.models.neural.classifier import ModuleClassifier
from learner.models.neural.dropout import ConsistentDropout
from learner.ports import Arrays, Inputs, TrainingSet


class _Perceptron(nn.Module):
    """Linear, ReLU and dropout for each hidden layer, and a linear head. Vectors are divided by `scale` first."""

    scale: torch.Tensor

    def __init__(self, widths: Sequence[int], classes: int, *, dropout: float, scale: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            layers += [nn.Linear(width, following), nn.ReLU(), ConsistentDropout(dropout)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], classes)
        self.register_buffer("scale", torch.tensor(scale))

    def features(self, vectors: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.body(vectors / self.scale)
        return hidden

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(vectors))
        return logits


class MultilayerPerceptron(ModuleClassifier):
    """Linear layers with ReLU and dropout, and a linear head; no batch norm.

    Vectors are divided by their root mean square over the training set's entries, so that a network learns alike from
    unit vectors and from pixels 0 to 255: one number, kept with the model, which changes no direction.

    Rumelhart, Hinton and Williams, Learning representations by back-propagating errors, Nature 323 (1986). Cost: O(n·p)
    an epoch for p parameters.
    """

    defaults: Mapping[str, object] = MappingProxyType({"epochs": 100, "batch_size": 64, "hidden": (128,)})
    predicted_at_once = 16_384

    def _build(self, training: TrainingSet) -> nn.Module:
        widths = (training.vectors.shape[1], *self._settings.hidden)
        root_mean_square = float(np.sqrt(np.mean(np.square(training.vectors, dtype=np.float64))))
        return self._network(widths, scale=root_mean_square or 1.0)

    def _collate(self, inputs: Inputs, rows: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and bool((np.diff(rows) == 1).all()):
            return {
                "vectors": inputs.vectors[rows[0] : rows[-1] + 1]
            }  # a view: predictions go through the rows in order
        return {"vectors": inputs.vectors[torch.from_numpy(rows).to(inputs.vectors.device)]}

    def _save_extra(self) -> dict[str, NDArray[np.generic]]:
        linear = [layer for layer in self._fitted().modules() if isinstance(layer, nn.Linear)]
        return {"widths": np.array([layer.in_features for layer in linear], np.int64)}

    def _load_extra(self, arrays: Arrays) -> nn.Module:
        return self._network([int(width) for width in arrays["widths"]], scale=1.0)

    def _network(self, widths: Sequence[int], *, scale: float) -> nn.Module:
        classes = len(self._problem.classes)
        return _Perceptron(widths, classes, dropout=self._settings.dropout, scale=scale)
