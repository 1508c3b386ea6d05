"""LearnerService over gRPC: messages in, messages out, nothing else."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass

import grpc

from learner.cross_predicting import CrossPredictor
from learner.embedding import Embedder
from learner.evaluation import Evaluator
from learner.messages import (
    header_first,
    read_embed_header,
    read_examples,
    read_labelled_set,
    read_propagate_header,
    read_select_header,
    read_train_header,
    to_evaluate_response,
    to_select_response,
    to_train_result,
)
from learner.ports import CancelCheck, Progress
from learner.predicting import Prediction, Predictor
from learner.propagation import Propagator
from learner.reembedding.jobs import ReembeddingJobs
from learner.reembedding.messages import read_start, to_message
from learner.selecting import Selector
from learner.training import Trainer, TrainOutcome
from learner.waiting import PlaceTold
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
        cross_predictor: CrossPredictor,
        propagator: Propagator,
        embedder: Embedder,
        jobs: ReembeddingJobs,
        limits: RequestLimits,
        progress_interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trainer = trainer
        self._selector = selector
        self._evaluator = evaluator
        self._predictor = predictor
        self._cross_predictor = cross_predictor
        self._propagator = propagator
        self._embedder = embedder
        self._jobs = jobs
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

        def work(progress: Progress, place_told: PlaceTold, cancelled: CancelCheck) -> TrainOutcome:
            return self._trainer.train(order, examples, progress=progress, place_told=place_told, cancelled=cancelled)

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
            case "texts":
                return self._predictor.of_texts(campaign, round_number, list(request.texts.texts))
            case "items":
                limit = self._limits.max_predict_ids
                ids = check_ids("items.ids", request.items.ids, limit=limit, setting="max_predict_ids")
                return self._predictor.of_items(campaign, round_number, pool, ids)
            case "whole_pool":
                return self._predictor.of_pool(campaign, round_number, pool)
            case _:
                raise InvalidArgument("source", "is missing: give items, vectors, texts or whole_pool")

    def CrossPredict(  # noqa: N802
        self, request_iterator: Iterator[learner_pb2.CrossPredictRequest], context: grpc.ServicerContext
    ) -> Iterator[learner_pb2.PredictResponse]:
        """Yield probabilities of labelled items by models that had not seen their labels."""
        first, requests = header_first(request_iterator)
        order = read_train_header(first.header)
        examples = read_examples(requests, limit=self._limits.max_examples)
        classes: Sequence[str] = order.problem.classes
        for chunk in self._cross_predictor.predict(order, examples, folds=first.folds, cancelled=_left(context)):
            yield learner_pb2.PredictResponse(
                ids=chunk.ids,
                probabilities=to_matrix(chunk.probabilities),
                classes=classes,
                pool_version=chunk.pool_version,
            )
            classes = ()

    def Propagate(  # noqa: N802
        self, request_iterator: Iterator[learner_pb2.PropagateRequest], context: grpc.ServicerContext
    ) -> Iterator[learner_pb2.PropagateResponse]:
        """Yield probabilities of every item of a pool, spread from its labelled items."""
        first, requests = header_first(request_iterator)
        order = read_propagate_header(first.header)
        examples = read_examples(requests, limit=self._limits.max_examples)
        for chunk in self._propagator.propagate(order, examples, cancelled=_left(context)):
            yield learner_pb2.PropagateResponse(
                ids=chunk.ids,
                probabilities=to_matrix(chunk.probabilities),
                mass=to_matrix(chunk.mass[:, None]),
                pool_version=chunk.pool_version,
                iterations=chunk.iterations,
            )

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
        """Turn texts or images into vectors."""
        first, requests = header_first(request_iterator)
        options = read_embed_header(first.header)
        for vectors in self._embedder.embed(_items_to_embed(requests), options):
            yield learner_pb2.EmbedResponse(vectors=to_matrix(vectors))

    def StartReembedding(  # noqa: N802
        self,
        request: learner_pb2.StartReembeddingRequest,
        context: grpc.ServicerContext,  # noqa: ARG002 - the job outlives the call
    ) -> learner_pb2.StartReembeddingResponse:
        """Begin to embed a pool anew."""
        job = self._jobs.start(read_start(request))
        return learner_pb2.StartReembeddingResponse(job=to_message(job))

    def WatchReembedding(  # noqa: N802
        self, request: learner_pb2.WatchReembeddingRequest, context: grpc.ServicerContext
    ) -> Iterator[learner_pb2.WatchReembeddingResponse]:
        """Tell how a job goes."""
        for job in self._jobs.watch(request.id, left=_left(context)):
            yield learner_pb2.WatchReembeddingResponse(job=to_message(job))

    def CancelReembedding(  # noqa: N802
        self,
        request: learner_pb2.CancelReembeddingRequest,
        context: grpc.ServicerContext,  # noqa: ARG002 - it takes no time
    ) -> learner_pb2.CancelReembeddingResponse:
        """Stop a job."""
        return learner_pb2.CancelReembeddingResponse(job=to_message(self._jobs.cancel(request.id)))


def _items_to_embed(requests: Iterator[learner_pb2.EmbedRequest]) -> Iterator[str | bytes]:
    for request in requests:
        yield from request.texts
        yield from request.images


def _left(context: grpc.ServicerContext) -> CancelCheck:
    return lambda: not context.is_active()


def _with_progress(
    work: Callable[[Progress, PlaceTold, CancelCheck], TrainOutcome],
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

    def place_told(place: int) -> None:
        answers.put(learner_pb2.TrainResponse(progress=learner_pb2.TrainProgress(queue_place=place)))

    def run() -> None:
        try:
            outcome = work(progress, place_told, lambda: abandoned.is_set() or not context.is_active())
            answers.put(learner_pb2.TrainResponse(result=to_train_result(outcome)))
        except BaseException as error:  # noqa: BLE001 - carried over to the call's own thread, which raises it
            answers.put(error)

    thread = threading.Thread(target=copy_context().run, args=(run,), name="train")
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
