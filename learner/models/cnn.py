"""One-dimensional convolutions over words.

Kim, Convolutional neural networks for sentence classification, EMNLP 2014.
"""

import torch
from torch import nn
from torch.nn import functional

from learner.models.neural.dropout import ConsistentDropout
from learner.models.text.word_model import WordModel
from learner.models.text.words import PADDING, WordEmbedding

WIDTHS = (3, 4, 5)
"""Words that a filter sees at once."""


class ConvolutionalNetwork(nn.Module):
    """Filters of WIDTHS words, the maximum of each over the text, dropout, and a linear layer.

    h = ReLU(max over windows of (W·window + b)), features (b, 3·filters). A text is filled up with w − 1 empty words on
    both sides, so that short and empty texts have windows too; windows that lie in a batch's padding do not count, so
    what a text gets does not depend on the others in its batch.

    Parameters
    ----------
    filters
        Of each width.
    """

    def __init__(self, *, vocabulary: int, embedding: int, filters: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.embedding = WordEmbedding(vocabulary, embedding)
        self.filters = nn.ModuleList(nn.Conv1d(embedding, filters, width, padding=width - 1) for width in WIDTHS)
        self.dropout = ConsistentDropout(dropout)
        self.head = nn.Linear(len(WIDTHS) * filters, classes)

    def features(self, words: torch.Tensor) -> torch.Tensor:
        """Return (b, 3·filters) of words (b, t) int64."""
        lengths = (words != PADDING).sum(dim=1, keepdim=True).clamp_min(1)
        embedded = self.embedding(words).transpose(1, 2)
        maxima = []
        for width, filters in zip(WIDTHS, self.filters, strict=True):
            windows = filters(embedded)
            beyond = torch.arange(windows.shape[2], device=words.device) >= lengths + width - 1
            maxima.append(windows.masked_fill(beyond[:, None], -torch.inf).amax(dim=2))
        return functional.relu(torch.cat(maxima, dim=1))

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Return logits (b, c)."""
        logits: torch.Tensor = self.head(self.dropout(self.features(words)))
        return logits


class ConvolutionalClassifier(WordModel):
    """The network of Kim (2014) on a vocabulary of the labelled texts; see WordModel.

    `neural.hidden` is the number of filters of each width, 100 by default.
    """

    default_hidden = 100

    def _network(self, vocabulary: int) -> nn.Module:
        return ConvolutionalNetwork(
            vocabulary=vocabulary,
            embedding=self._embedding,
            filters=self._hidden,
            classes=len(self._problem.classes),
            dropout=self._settings.dropout,
        )
