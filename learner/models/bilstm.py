"""A recurrent network over words, both ways. Graves and Schmidhuber, Neural Networks 18 (2005)."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from learner.models.neural.dropout import ConsistentDropout
from learner.models.text.word_model import WordModel
from learner.models.text.words import PADDING, WordEmbedding


class RecurrentNetwork(nn.Module):
    """An LSTM each way, the maximum and the mean of its states over the words, dropout, and a linear layer.

    Features are (b, 4·units): maximum and mean, each of both directions. Padding is neither run over nor pooled; an
    empty text is one empty word.

    Parameters
    ----------
    units
        Of each direction.
    """

    def __init__(self, *, vocabulary: int, embedding: int, units: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.embedding = WordEmbedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, units, batch_first=True, bidirectional=True)
        self.dropout = ConsistentDropout(dropout)
        self.head = nn.Linear(4 * units, classes)

    def features(self, words: torch.Tensor) -> torch.Tensor:
        """Return (b, 4·units) of words (b, t) int64."""
        lengths = (words != PADDING).sum(dim=1).clamp_min(1)
        packed = pack_padded_sequence(self.embedding(words), lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        padding = (torch.arange(states.shape[1], device=words.device) >= lengths[:, None])[:, :, None]
        maxima = states.masked_fill(padding, -torch.inf).amax(dim=1)
        means = states.masked_fill(padding, 0).sum(dim=1) / lengths[:, None]
        return torch.cat([maxima, means], dim=1)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Return logits (b, c)."""
        logits: torch.Tensor = self.head(self.dropout(self.features(words)))
        return logits


class RecurrentClassifier(WordModel):
    """A bidirectional LSTM on a vocabulary of the labelled texts; see WordModel.

    `neural.hidden` is the number of units of each direction, 128 by default.
    """

    default_hidden = 128

    def _network(self, vocabulary: int) -> nn.Module:
        return RecurrentNetwork(
            vocabulary=vocabulary,
            embedding=self._embedding,
            units=self._hidden,
            classes=len(self._problem.classes),
            dropout=self._settings.dropout,
        )
