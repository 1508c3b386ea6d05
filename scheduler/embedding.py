"""Texts as vectors, by the encoder that a campaign's pool was embedded with."""

from collections.abc import Sequence

import numpy as np

from scheduler.ports import Learner
from sealpool.types import Vectors
from sealpool.v1 import learner_pb2


def embed_texts(learner: Learner, encoder: learner_pb2.EmbedHeader, texts: Sequence[str]) -> Vectors:
    """Return one vector a text, (n, d) float32.

    Raises
    ------
    FailedPrecondition
        The learner has no such encoder.
    """
    pooling = "cls" if encoder.pooling == learner_pb2.POOLING_CLS else "mean"
    parts = learner.embed(
        texts,
        encoder=encoder.encoder,
        pooling=pooling,
        normalize=encoder.normalize,
        max_tokens=encoder.max_tokens,
    )
    return np.concatenate(list(parts))
