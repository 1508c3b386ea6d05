"""Predict: class probabilities of items, of vectors, or of a whole pool, in bounded chunks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learner.checkpoints import Checkpoint, CheckpointStore
from learner.index_port import Index
from learner.pools import check_dimension, usable_pool
from learner.ports import Classifier, Inputs
from learner.scoring import TEXT_ROWS
from learner.vectors import require_texts
from sealpool.errors import FailedPrecondition
from sealpool.types import ItemId, Items, Payload, Vectors
from sealpool.validation import check_vectors

_ROWS_FROM_INDEX = 4096
_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedChunk:
    """Probabilities (n, c) float32 of some items; `ids` is empty where vectors were given."""

    ids: Sequence[ItemId]
    probabilities: NDArray[np.float32]
    pool_version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """A model's predictions: `chunks` are computed as they are taken."""

    classes: tuple[str, ...]
    round: int
    chunks: Iterator[PredictedChunk]


def answer_rows(classes: int) -> int:
    """Return how many items' probabilities go into one message."""
    return max(1, min(_ROWS_FROM_INDEX, _ANSWER_BYTES // (4 * classes + 64)))


@torch.inference_mode()
def predict(
    classifier: Classifier, vectors: Vectors, device: torch.device, *, texts: Sequence[str] | None = None
) -> NDArray[np.float32]:
    """Return the probabilities (n, c) float32 of vectors (n, d), and texts (n) where the model reads them.

    Raises
    ------
    FailedPrecondition
        The numbers overflow.
    """
    # Vectors that came in a message are a read-only view of it, which torch does not take.
    rows = torch.from_numpy(np.require(vectors, np.float32, "W")).to(device)
    probabilities: NDArray[np.float32] = classifier.predict_proba(Inputs(vectors=rows, texts=texts)).cpu().numpy()
    if not np.isfinite(probabilities).all():
        raise FailedPrecondition("the model overflows on these vectors: scale them to lengths near 1")
    return probabilities


class Predictor:
    """Predicts with checkpoints. Safe to share between threads.

    Every method raises NotFound where there is no such checkpoint or pool, InvalidArgument where vectors have another
    dimension than the model, and FailedPrecondition where the checkpoint cannot be read or, as chunks are taken, where
    the numbers overflow.
    """

    def __init__(self, index: Index, *, checkpoints: CheckpointStore, device: torch.device) -> None:
        self._index = index
        self._checkpoints = checkpoints
        self._device = device

    def of_vectors(self, campaign: str, round_number: int | None, vectors: Vectors) -> Prediction:
        """Predict vectors (n, d); FailedPrecondition for a model that reads texts."""
        checkpoint = self._load(campaign, round_number)
        if checkpoint.classifier.needs_text:
            raise FailedPrecondition(f"{checkpoint.info.model.name} reads texts: give texts or items", field="vectors")
        check_vectors("vectors", vectors, dimension=checkpoint.info.dimension)
        return self._prediction(checkpoint, 0, iter([Items(ids=[], vectors=vectors)]))

    def of_texts(self, campaign: str, round_number: int | None, texts: Sequence[str]) -> Prediction:
        """Predict texts; FailedPrecondition for a model that takes vectors."""
        checkpoint = self._load(campaign, round_number)
        if not checkpoint.classifier.needs_text:
            raise FailedPrecondition(
                f"{checkpoint.info.model.name} takes vectors: give vectors or items", field="texts"
            )
        payloads = [Payload(text=text) for text in texts]
        nothing = np.empty((len(texts), 0), np.float32)
        return self._prediction(checkpoint, 0, iter([Items(ids=[], vectors=nothing, payloads=payloads)]))

    def of_items(self, campaign: str, round_number: int | None, pool_name: str, ids: Sequence[ItemId]) -> Prediction:
        """Predict items of a pool; an item that it does not have is NotFound, before anything is answered."""
        checkpoint, version, pool_name = self._with_pool(campaign, round_number, pool_name)
        reads_text = checkpoint.classifier.needs_text
        first = self._index.get_items(pool_name, ids, vectors=False)  # all there?
        pieces = (
            self._index.get_items(pool_name, first.ids[start : start + _ROWS_FROM_INDEX], payloads=reads_text)
            for start in range(0, len(first), _ROWS_FROM_INDEX)
        )
        return self._prediction(checkpoint, version, pieces)

    def of_pool(self, campaign: str, round_number: int | None, pool_name: str) -> Prediction:
        """Predict every item of a pool."""
        checkpoint, version, pool_name = self._with_pool(campaign, round_number, pool_name)
        pieces = self._index.scan_items(pool_name, payloads=checkpoint.classifier.needs_text)
        return self._prediction(checkpoint, version, pieces)

    def _with_pool(self, campaign: str, round_number: int | None, pool_name: str) -> tuple[Checkpoint, int, str]:
        checkpoint = self._load(campaign, round_number)
        pool = usable_pool(self._index, pool_name or checkpoint.info.pool)
        check_dimension("pool", pool, checkpoint)
        return checkpoint, pool.version, pool.spec.name

    def _load(self, campaign: str, round_number: int | None) -> Checkpoint:
        if round_number is None:
            round_number = self._checkpoints.latest_round(campaign)
        return self._checkpoints.load(campaign, round_number)

    def _prediction(self, checkpoint: Checkpoint, pool_version: int, pieces: Iterator[Items]) -> Prediction:
        classes, reads_text = checkpoint.info.problem.classes, checkpoint.classifier.needs_text
        rows = answer_rows(len(classes))
        rows = min(rows, TEXT_ROWS) if reads_text else rows

        def chunks() -> Iterator[PredictedChunk]:
            for piece in pieces:
                if piece.vectors is None:
                    raise AssertionError("items came without vectors")
                texts = _texts(piece) if reads_text else None
                for start in range(0, len(piece.vectors), rows):
                    some = slice(start, start + rows)
                    yield PredictedChunk(
                        ids=piece.ids[some],
                        probabilities=predict(
                            checkpoint.classifier,
                            piece.vectors[some],
                            self._device,
                            texts=None if texts is None else texts[some],
                        ),
                        pool_version=pool_version,
                    )

        return Prediction(classes=classes, round=checkpoint.info.round, chunks=chunks())


def _texts(piece: Items) -> list[str]:
    if piece.payloads is None:
        raise AssertionError("items came without texts")
    texts = [payload.text for payload in piece.payloads]
    require_texts(piece.ids or [ItemId(f"text {number}") for number in range(len(texts))], texts)
    return texts
