"""LearnerService over gRPC: messages in, messages out, nothing else."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc

from learner.embedding import Embedder
from learner.evaluation import Evaluator
from learner.messages import (
    header_first,
    read_embed_header,
    read_examples,
    read_labelled_set,
    read_select_header,
    read_train_header,
    to_evaluate_response,
    to_select_response,
    to_train_result,
)
from learner.ports import CancelCheck, Progress
from learner.predicting import Prediction, Predictor
from learner.selecting import Selector
from learner.training import Trainer, TrainOutcome
from sealpool.errors import InvalidArgument
from sealpool.matrix import from_matrix, to_matrix
from sealpool.v1 import learner_pb2, learner_pb2_grpc
from sealpool.validation import check_ids, check_name


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestLimits:
    """Limits of what a request may ask, each by its setting's name."""

    max_batch: int
    max_examples: int
    max_predict_ids: int


class LearnerServicer(learner_pb2_grpc.LearnerServiceServicer):
    """Translates calls for the rooms of the learner."""

    def __init__(
        self,
        *,
        trainer: Trainer,
        selector: Selector,
        evaluator: Evaluator,
        predictor: Predictor,
        embedder: Embedder,
        limits: RequestLimits,
        progress_interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trainer = trainer
        self._selector = selector
        self._evaluator = evaluator
        self._predictor = predictor
        self._embedder = embedder
        self._limits = limits
        self._progress_interval_s = progress_interval_s
        self._clock = clock

    def Train(  # noqa: N802
        self, request_iterator: Iterator[learner_pb2.TrainRequest], context: grpc.ServicerContext
    ) -> Iterator[learner_pb2.TrainResponse]:
        """Train, and tell how it goes meanwhile."""
        first, requests = header_first(request_iterator)
        order = read_train_header(first.header)
        examples = read_examples(requests, limit=self._limits.max_examples)

        def work(progress: Progress, cancelled: CancelCheck) -> TrainOutcome:
            return self._trainer.train(order, examples, progress=progress, cancelled=cancelled)

        yield from _with_progress(work, context, interval_s=self._progress_interval_s, clock=self._clock)

    def Select(  # noqa: N802
        self, request_iterator: Iterator[learner_pb2.SelectRequest], context: grpc.ServicerContext
    ) -> learner_pb2.SelectResponse:
        """Pick the batch of a round."""
        first, requests = header_first(request_iterator)
        order = read_select_header(first.header, max_batch=self._limits.max_batch)
        labelled = read_labelled_set(requests, limit=self._limits.max_examples)
        return to_select_response(self._selector.select(order, labelled, cancelled=_left(context)))

    def Predict(  # noqa: N802
        self,
        request: learner_pb2.PredictRequest,
        context: grpc.ServicerContext,  # noqa: ARG002 - closing the generator ends the work
    ) -> Iterator[learner_pb2.PredictResponse]:
        """Yield probabilities."""
        prediction = self._predict(request)
        classes = prediction.classes
        for chunk in prediction.chunks:
            yield learner_pb2.PredictResponse(
                ids=chunk.ids,
                probabilities=to_matrix(chunk.probabilities),
                classes=classes,
                round=prediction.round,
                pool_version=chunk.pool_version,
            )
            classes = ()

    def _predict(self, request: learner_pb2.PredictRequest) -> Prediction:
        campaign = check_name("campaign", request.campaign)
        round_number = request.round if request.HasField("round") else None
        pool = request.pool and check_name("pool", request.pool)
        match request.WhichOneof("source"):
            case "vectors":
                return self._predictor.of_vectors(campaign, round_number, from_matrix(request.vectors))
            case "items":
                limit = self._limits.max_predict_ids
                ids = check_ids("items.ids", request.items.ids, limit=limit, setting="max_predict_ids")
                return self._predictor.of_items(campaign, round_number, pool, ids)
            case "whole_pool":
                return self._predictor.of_pool(campaign, round_number, pool)
            case _:
                raise InvalidArgument("source", "is missing: give items, vectors or whole_pool")

    def Evaluate(  # noqa: N802
        self, request_iterator: Iterator[learner_pb2.EvaluateRequest], context: grpc.ServicerContext
    ) -> learner_pb2.EvaluateResponse:
        """Measure a checkpoint."""
        first, requests = header_first(request_iterator)
        header = first.header
        campaign, pool = check_name("header.campaign", header.campaign), check_name("header.pool", header.pool)
        examples = read_examples(requests, limit=self._limits.max_examples)
        evaluation = self._evaluator.evaluate(campaign, header.round, pool, examples, cancelled=_left(context))
        return to_evaluate_response(evaluation)

    def Embed(  # noqa: N802
        self,
        request_iterator: Iterator[learner_pb2.EmbedRequest],
        context: grpc.ServicerContext,  # noqa: ARG002 - closing the generator ends the work
    ) -> Iterator[learner_pb2.EmbedResponse]:
        """Turn texts into vectors."""
        first, requests = header_first(request_iterator)
        options = read_embed_header(first.header)
        texts = (text for request in requests for text in request.texts)
        for vectors in self._embedder.embed(texts, options):
            yield learner_pb2.EmbedResponse(vectors=to_matrix(vectors))


def _left(context: grpc.ServicerContext) -> CancelCheck:
    return lambda: not context.is_active()


def _with_progress(
    work: Callable[[Progress, CancelCheck], TrainOutcome],
    context: grpc.ServicerContext,
    *,
    interval_s: float,
    clock: Callable[[], float],
) -> Iterator[learner_pb2.TrainResponse]:
    """Run a training in a thread of its own, so that its progress can be answered while it runs."""
    answers: queue.SimpleQueue[learner_pb2.TrainResponse | BaseException] = queue.SimpleQueue()
    abandoned = threading.Event()
    last_told = clock()

    def progress(iteration: int, loss: float) -> None:
        nonlocal last_told
        now = clock()
        if now - last_told >= interval_s:
            last_told = now
            part = learner_pb2.TrainProgress(iteration=iteration, loss=loss)
            answers.put(learner_pb2.TrainResponse(progress=part))

    def run() -> None:
        try:
            outcome = work(progress, lambda: abandoned.is_set() or not context.is_active())
            answers.put(learner_pb2.TrainResponse(result=to_train_result(outcome)))
        except BaseException as error:  # noqa: BLE001 - carried over to the call's own thread, which raises it
            answers.put(error)

    thread = threading.Thread(target=run, name="train")
    thread.start()
    try:
        while True:
            answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            yield answer
            if answer.HasField("result"):
                return
    finally:
        abandoned.set()
        thread.join()
