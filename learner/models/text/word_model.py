"""What cnn and bilstm share: a vocabulary of the labelled texts, and networks that read its numbers."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from learner.models.text.reading import Numbers, TextModel, pad
from learner.models.text.words import PADDING, Vocabulary
from learner.options import ModelOptions
from learner.ports import Arrays, TrainingSet
from learner.problem import Problem
from sealpool.errors import InvalidArgument

DEFAULT_WORDS = 20_000
DEFAULT_EMBEDDING = 100
DEFAULT_MAX_WORDS = 256


class WordModel(TextModel):
    """A network on words, trained from nothing but the labelled texts.

    The vocabulary is of the texts that it is fitted to from scratch; going on from a model keeps that model's, so words
    that only later texts have stay unknown until the next fit from scratch. Words past `text.max_tokens` are not read.
    """

    default_hidden: int
    """`neural.hidden` where the campaign leaves the choice."""

    def __init__(self, options: ModelOptions, problem: Problem) -> None:
        super().__init__(options, problem)
        hidden = options.neural.hidden or (self.default_hidden,)
        if len(hidden) != 1:
            raise InvalidArgument("header.model.neural.hidden", f"has {len(hidden)} entries; {options.name} takes one")
        self._hidden = hidden[0]
        self._embedding = options.text.embedding or DEFAULT_EMBEDDING
        self._max_words = options.text.max_tokens or DEFAULT_MAX_WORDS
        self._vocabulary = Vocabulary(())

    def _network(self, vocabulary: int) -> nn.Module:
        """Return a new network that reads numbers below `vocabulary`."""
        raise NotImplementedError

    def _build(self, training: TrainingSet) -> nn.Module:
        self._vocabulary = Vocabulary.of(self._texts(training), self._options.text.vocabulary or DEFAULT_WORDS)
        return self._network(len(self._vocabulary))

    def _encode(self, texts: Sequence[str]) -> list[Numbers]:
        return [self._vocabulary.encode(text, self._max_words) for text in texts]

    def _tensors(self, texts: Sequence[Numbers]) -> dict[str, torch.Tensor]:
        return {"words": pad(texts, padding=PADDING)}

    def _save_extra(self) -> dict[str, NDArray[np.generic]]:
        return self._vocabulary.save()

    def _load_extra(self, arrays: Arrays) -> nn.Module:
        self._vocabulary = Vocabulary.load(arrays)
        return self._network(len(self._vocabulary))
