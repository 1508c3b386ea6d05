"""What every model that reads texts shares: where its texts come from, and encoding each once."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from learner.models.neural.classifier import ModuleClassifier
from learner.models.neural.loop import Collate
from learner.ports import Inputs, TrainingSet
from sealpool.errors import FailedPrecondition

Numbers = NDArray[np.int32]
"""(t,) the numbers of a text's words or tokens."""

Encode = Callable[[Sequence[str]], list[Numbers]]


class TextModel(ModuleClassifier):
    """A ModuleClassifier on texts. A subclass gives `_encode` and `_tensors` beside what ModuleClassifier asks for."""

    @property
    def needs_text(self) -> bool:
        """Whether it reads texts: yes."""
        return True

    def _encode(self, texts: Sequence[str]) -> list[Numbers]:
        """Return the numbers of each text, as they are while this model is not fitted anew."""
        raise NotImplementedError

    def _tensors(self, texts: Sequence[Numbers]) -> dict[str, torch.Tensor]:
        """Return the module's inputs of encoded texts, on the CPU."""
        raise NotImplementedError

    def _collator(self, inputs: Inputs) -> Collate:
        encoded = EncodedOnce(self._texts(inputs), self._encode)
        return lambda rows: self._on_device(encoded.of(rows))

    def _on_device(self, texts: Sequence[Numbers]) -> dict[str, torch.Tensor]:
        return {name: tensor.to(self._device) for name, tensor in self._tensors(texts).items()}

    def _lengths(self, inputs: Inputs) -> NDArray[np.int64]:
        # In characters, because counting words takes a good part of the time that predicting takes.
        texts = self._texts(inputs)
        return np.fromiter(map(len, texts), np.int64, len(texts))

    def _texts(self, items: Inputs | TrainingSet) -> Sequence[str]:
        if items.texts is None:
            raise FailedPrecondition(f"the model {self._options.name!r} reads texts, and the items came without")
        return items.texts

    def _check_texts(self, training: TrainingSet) -> None:
        self._texts(training)


class EncodedOnce:
    """Texts, each encoded when first asked for: a training that is cancelled has not waited for all of them."""

    def __init__(self, texts: Sequence[str], encode: Encode) -> None:
        self._texts = texts
        self._encode = encode
        self._known: dict[int, Numbers] = {}

    def of(self, rows: NDArray[np.int64]) -> list[Numbers]:
        """Return the numbers of some texts."""
        unknown = [row for row in rows.tolist() if row not in self._known]
        if unknown:
            self._known.update(zip(unknown, self._encode([self._texts[row] for row in unknown]), strict=True))
        return [self._known[row] for row in rows.tolist()]


def pad(texts: Sequence[Numbers], *, padding: int) -> torch.Tensor:
    """Return texts as one (n, t) int64 tensor, the shorter filled up with `padding`; t is 1 at least."""
    padded = np.full((len(texts), max([1, *map(len, texts)])), padding, np.int64)
    for row, numbers in zip(padded, texts, strict=True):
        row[: len(numbers)] = numbers
    return torch.from_numpy(padded)
