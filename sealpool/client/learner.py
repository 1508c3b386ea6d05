"""Client of the learner."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sealpool.batches import to_labelled_batches
from sealpool.client.connection import Connection
from sealpool.client.options import ClientOptions
from sealpool.errors import InternalError
from sealpool.matrix import from_matrix, to_matrix
from sealpool.types import ItemId, LabelledItems, Vectors
from sealpool.v1 import learner_pb2, learner_pb2_grpc

_POOLING = {"mean": learner_pb2.POOLING_MEAN, "cls": learner_pb2.POOLING_CLS}


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """Class probabilities of some items.

    `probabilities` (n, c) float32 has one column for each of `classes`. `ids` is empty where vectors were given.
    """

    ids: Sequence[ItemId]
    probabilities: NDArray[np.float32]
    classes: Sequence[str]
    round: int


class LearnerClient(Connection):
    """Training, selection, prediction and embedding, over gRPC."""

    def __init__(self, target: str = "127.0.0.1:7302", *, options: ClientOptions | None = None) -> None:
        super().__init__(target, options=options)
        self._stub = learner_pb2_grpc.LearnerServiceStub(self._channel)

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
            for answer in self._stub.Train(requests(), timeout=seconds):
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

        return self.call(lambda s: self._stub.Select(requests(), timeout=s), long=True)

    def evaluate(self, header: learner_pb2.EvaluateHeader, examples: LabelledItems) -> learner_pb2.EvaluateResponse:
        """Measure the model of a round on held-out items."""

        def requests() -> Iterator[learner_pb2.EvaluateRequest]:
            yield learner_pb2.EvaluateRequest(header=header)
            for batch in to_labelled_batches(examples, chunk_rows=self.options.chunk_ids):
                yield learner_pb2.EvaluateRequest(examples=batch)

        return self.call(lambda s: self._stub.Evaluate(requests(), timeout=s), long=True)

    def predict(
        self,
        campaign: str,
        *,
        round: int | None = None,  # noqa: A002 - the field's name everywhere
        pool: str = "",
        ids: Sequence[str] | None = None,
        vectors: Vectors | None = None,
    ) -> Iterator[Predictions]:
        """Yield class probabilities of the items `ids`, of `vectors`, or, with neither, of the whole pool."""
        request = learner_pb2.PredictRequest(
            campaign=campaign,
            round=round,
            pool=pool,
            items=None if ids is None else learner_pb2.ItemIds(ids=ids),
            vectors=None if vectors is None else to_matrix(vectors),
            whole_pool=learner_pb2.WholePool() if ids is None and vectors is None else None,
        )
        classes: Sequence[str] = ()
        for answer in self.stream(lambda s: self._stub.Predict(request, timeout=s)):
            classes = answer.classes or classes
            yield Predictions(
                ids=[ItemId(item_id) for item_id in answer.ids],
                probabilities=from_matrix(answer.probabilities, field="probabilities"),
                classes=classes,
                round=answer.round,
            )

    def embed(
        self,
        texts: Iterable[str],
        *,
        encoder: str,
        pooling: str = "mean",
        normalize: bool = True,
        max_tokens: int = 0,
        chunk_texts: int = 512,
    ) -> Iterator[Vectors]:
        """Yield vectors of texts in their order, in chunks. Not tried again: texts may come from anywhere."""
        header = learner_pb2.EmbedHeader(
            encoder=encoder, pooling=_POOLING[pooling], normalize=normalize, max_tokens=max_tokens
        )

        def requests() -> Iterator[learner_pb2.EmbedRequest]:
            yield learner_pb2.EmbedRequest(header=header)
            some: list[str] = []
            for text in texts:
                some.append(text)
                if len(some) == chunk_texts:
                    yield learner_pb2.EmbedRequest(texts=some)
                    some = []
            if some:
                yield learner_pb2.EmbedRequest(texts=some)

        answers = self._stub.Embed(requests(), timeout=self.options.long_timeout_s)
        for answer in self.stream_once(answers):
            yield from_matrix(answer.vectors)
