"""Client of the learner."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sealpool.batches import to_labelled_batches
from sealpool.client.connection import Connection
from sealpool.client.options import ClientOptions
from sealpool.client.places import Places
from sealpool.client.resuming import Told, Unanswered
from sealpool.errors import InternalError, InvalidArgument
from sealpool.matrix import from_matrix, to_matrix
from sealpool.types import ItemId, LabelledItems, Vectors
from sealpool.v1 import learner_pb2, learner_pb2_grpc

_CHUNK_BYTES = 1 << 20
_POOLING = {"mean": learner_pb2.POOLING_MEAN, "cls": learner_pb2.POOLING_CLS}


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """Class probabilities of some items.

    `probabilities` (n, c) float32 has one column for each of `classes`. `ids` is empty where vectors were given, and
    `pool_version` 0.
    """

    ids: Sequence[ItemId]
    probabilities: NDArray[np.float32]
    classes: Sequence[str]
    round: int
    pool_version: int = 0


class LearnerClient(Connection):
    """Training, selection, prediction and embedding, over gRPC."""

    def __init__(self, target: str = "127.0.0.1:7302", *, options: ClientOptions | None = None) -> None:
        super().__init__(target, options=options)
        self._stub = learner_pb2_grpc.LearnerServiceStub(self._channel)
        self._places = Places()

    def train(
        self,
        header: learner_pb2.TrainHeader,
        examples: LabelledItems,
        *,
        on_progress: Callable[[learner_pb2.TrainProgress], None] | None = None,
    ) -> learner_pb2.TrainResult:
        """Train the model of a campaign's round on the whole labelled set."""

        def requests() -> Iterator[learner_pb2.TrainRequest]:
            yield learner_pb2.TrainRequest(header=header)
            for batch in to_labelled_batches(examples, chunk_rows=self.options.chunk_ids):
                yield learner_pb2.TrainRequest(examples=batch)

        def attempt(seconds: float) -> learner_pb2.TrainResult | None:
            result = None
            answers = self._places.stream(
                header.campaign, lambda place: self._stub.Train(requests(), timeout=seconds, metadata=place)
            )
            for answer in answers:
                if answer.HasField("progress") and on_progress is not None:
                    on_progress(answer.progress)
                elif answer.HasField("result"):
                    result = answer.result
            return result

        result = self.call(attempt, long=True)
        if result is None:
            raise InternalError("the answer to Train ends without a result")
        return result

    def select(
        self,
        header: learner_pb2.SelectHeader,
        labelled_ids: Sequence[ItemId],
        expand_from: Sequence[bool],
        excluded_ids: Sequence[ItemId],
        *,
        classes: Sequence[Sequence[int]] = (),
    ) -> learner_pb2.SelectResponse:
        """Pick the batch of a round.

        `expand_from`, and `classes` where the policy needs them (anchoral), are parallel to `labelled_ids`.
        """
        step = self.options.chunk_ids

        def requests() -> Iterator[learner_pb2.SelectRequest]:
            yield learner_pb2.SelectRequest(header=header)
            for start in range(0, len(labelled_ids), step):
                some = classes[start : start + step]
                yield learner_pb2.SelectRequest(
                    labelled_ids=labelled_ids[start : start + step],
                    expand_from=expand_from[start : start + step],
                    label_counts=[len(of_item) for of_item in some],
                    labels=[label for of_item in some for label in of_item],
                )
            for start in range(0, len(excluded_ids), step):
                yield learner_pb2.SelectRequest(excluded_ids=excluded_ids[start : start + step])

        def attempt(seconds: float) -> learner_pb2.SelectResponse:
            return self._places.call(
                header.campaign, lambda place: self._stub.Select(requests(), timeout=seconds, metadata=place)
            )

        return self.call(attempt, long=True)

    def evaluate(self, header: learner_pb2.EvaluateHeader, examples: LabelledItems) -> learner_pb2.EvaluateResponse:
        """Measure the model of a round on held-out items."""

        def requests() -> Iterator[learner_pb2.EvaluateRequest]:
            yield learner_pb2.EvaluateRequest(header=header)
            for batch in to_labelled_batches(examples, chunk_rows=self.options.chunk_ids):
                yield learner_pb2.EvaluateRequest(examples=batch)

        def attempt(seconds: float) -> learner_pb2.EvaluateResponse:
            return self._places.call(
                header.campaign, lambda place: self._stub.Evaluate(requests(), timeout=seconds, metadata=place)
            )

        return self.call(attempt, long=True)

    def predict(
        self,
        campaign: str,
        *,
        round: int | None = None,  # noqa: A002 - the field's name everywhere
        pool: str = "",
        ids: Sequence[str] | None = None,
        vectors: Vectors | None = None,
        texts: Sequence[str] | None = None,
    ) -> Iterator[Predictions]:
        """Yield class probabilities of the items `ids`, of `vectors`, of `texts`, or, with none, of the whole pool.

        Models of vectors take no texts, and models of texts no vectors. Where the learner restarts in the middle it
        goes on; Unavailable if the pool, or the latest round, has changed meanwhile.
        """
        if sum(source is not None for source in (ids, vectors, texts)) > 1:
            raise InvalidArgument("source", "give ids, vectors or texts, one of them")
        request = learner_pb2.PredictRequest(
            campaign=campaign,
            round=round,
            pool=pool,
            items=None if ids is None else learner_pb2.ItemIds(ids=ids),
            vectors=None if vectors is None else to_matrix(vectors),
            texts=None if texts is None else learner_pb2.Texts(texts=texts),
            whole_pool=learner_pb2.WholePool() if ids is None and vectors is None and texts is None else None,
        )
        told: Told[learner_pb2.PredictResponse] = Told()

        def begin(seconds: float) -> Iterator[tuple[int, object, learner_pb2.PredictResponse]]:
            answers = self._places.stream(
                campaign, lambda place: self._stub.Predict(request, timeout=seconds, metadata=place)
            )
            # Not by the probabilities: another machine may round them otherwise.
            return told.beyond((a.probabilities.rows, (a.round, a.pool_version, list(a.ids)), a) for a in answers)

        classes: Sequence[str] = ()
        for rows, known_by, answer in self.resumed(begin):
            told.add(rows, known_by)
            classes = answer.classes or classes
            yield Predictions(
                ids=[ItemId(item_id) for item_id in answer.ids],
                probabilities=from_matrix(answer.probabilities, field="probabilities"),
                classes=classes,
                round=answer.round,
                pool_version=answer.pool_version,
            )

    def embed(
        self,
        items: Iterable[str | bytes],
        *,
        encoder: str,
        pooling: str = "mean",
        normalize: bool = True,
        max_tokens: int = 0,
        chunk_texts: int = 512,
    ) -> Iterator[Vectors]:
        """Yield vectors of texts (str) or of image files (bytes) in their order, in chunks.

        A message has up to `chunk_texts` items, and about 1 MiB of images. Items are taken ahead of the answers, in
        another thread, and sent again where the learner restarts in the middle.
        """
        header = learner_pb2.EmbedHeader(
            encoder=encoder, pooling=_POOLING[pooling], normalize=normalize, max_tokens=max_tokens
        )

        unanswered = Unanswered(items)

        def requests(sent: Iterator[str | bytes]) -> Iterator[learner_pb2.EmbedRequest]:
            yield learner_pb2.EmbedRequest(header=header)
            for some in _portions(sent, chunk_texts):
                yield learner_pb2.EmbedRequest(
                    texts=[item for item in some if isinstance(item, str)],
                    images=[item for item in some if isinstance(item, bytes)],
                )

        for answer in self.resumed(lambda s: self._stub.Embed(requests(unanswered.send()), timeout=s)):
            unanswered.answer(answer.vectors.rows)
            yield from_matrix(answer.vectors)

    def cross_predict(
        self, header: learner_pb2.TrainHeader, examples: LabelledItems, *, folds: int = 0
    ) -> Iterator[Predictions]:
        """Yield class probabilities of labelled items by models that had not seen their labels.

        Unavailable where the learner restarts in the middle.
        """

        def requests() -> Iterator[learner_pb2.CrossPredictRequest]:
            yield learner_pb2.CrossPredictRequest(header=header, folds=folds)
            for batch in to_labelled_batches(examples, chunk_rows=self.options.chunk_ids):
                yield learner_pb2.CrossPredictRequest(examples=batch)

        def begin(seconds: float) -> Iterator[learner_pb2.PredictResponse]:
            return self._places.stream(
                header.campaign, lambda place: self._stub.CrossPredict(requests(), timeout=seconds, metadata=place)
            )

        for answer in self.stream(begin):
            yield Predictions(
                ids=[ItemId(item_id) for item_id in answer.ids],
                probabilities=from_matrix(answer.probabilities, field="probabilities"),
                classes=header.classes,
                round=header.round,
                pool_version=answer.pool_version,
            )

    def propagate(
        self, header: learner_pb2.PropagateHeader, examples: LabelledItems
    ) -> Iterator[tuple[Predictions, NDArray[np.float32]]]:
        """Yield class probabilities of all items of a pool, spread from labelled ones, with their mass (n,) float32.

        Unavailable where the learner restarts in the middle.
        """

        def requests() -> Iterator[learner_pb2.PropagateRequest]:
            yield learner_pb2.PropagateRequest(header=header)
            for batch in to_labelled_batches(examples, chunk_rows=self.options.chunk_ids):
                yield learner_pb2.PropagateRequest(examples=batch)

        for answer in self.stream(lambda s: self._stub.Propagate(requests(), timeout=s)):
            predictions = Predictions(
                ids=[ItemId(item_id) for item_id in answer.ids],
                probabilities=from_matrix(answer.probabilities, field="probabilities"),
                classes=header.classes,
                round=0,
                pool_version=answer.pool_version,
            )
            yield predictions, from_matrix(answer.mass, field="mass").ravel()

    def start_reembedding(self, request: learner_pb2.StartReembeddingRequest) -> learner_pb2.ReembeddingJob:
        """Embed a pool anew into another one. Repeated with the same request it is the same job."""
        return self.call(lambda s: self._stub.StartReembedding(request, timeout=s), long=True).job

    def watch_reembedding(self, job_id: str) -> Iterator[learner_pb2.ReembeddingJob]:
        """Yield a job as it is, and each time that it changed, until it has ended."""
        request = learner_pb2.WatchReembeddingRequest(id=job_id)
        for answer in self.resumed(lambda s: self._stub.WatchReembedding(request, timeout=s)):
            yield answer.job

    def cancel_reembedding(self, job_id: str) -> learner_pb2.ReembeddingJob:
        """Stop a job after the texts at hand."""
        request = learner_pb2.CancelReembeddingRequest(id=job_id)
        return self.call(lambda s: self._stub.CancelReembedding(request, timeout=s)).job


def _portions(items: Iterable[str | bytes], size: int) -> Iterator[list[str | bytes]]:
    """Cut items into lists of at most `size`, which end early where images have come to _CHUNK_BYTES."""
    some: list[str | bytes] = []
    held = 0
    for item in items:
        if some and isinstance(item, bytes) and held + len(item) > _CHUNK_BYTES:
            yield some
            some, held = [], 0
        some.append(item)
        held += len(item) if isinstance(item, bytes) else 0
        if len(some) == size:
            yield some
            some, held = [], 0
    if some:
        yield some
