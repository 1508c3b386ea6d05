"""Messages of the wire into plain Python, checked, and answers back."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import accumulate
from typing import TypeVar

from learner.encoders import EmbedOptions, Pooling
from learner.evaluation import Evaluation
from learner.expansion import LabelledSet
from learner.problem import Problem, Task, check_problem
from learner.propagation import PropagateOrder
from learner.select_order import Origin, Selection, SelectOrder
from learner.specs import look_up, read_model, read_strategy
from learner.training import TrainOrder, TrainOutcome
from sealpool.batches import from_labelled_batch
from sealpool.errors import InvalidArgument, ResourceExhausted
from sealpool.types import ItemId, LabelledItems
from sealpool.v1 import common_pb2, learner_pb2
from sealpool.validation import check_ids, check_name

_GROWS_BY_PICK = "seals"

_TASKS = {
    common_pb2.TASK_KIND_BINARY: Task.BINARY,
    common_pb2.TASK_KIND_MULTICLASS: Task.MULTICLASS,
    common_pb2.TASK_KIND_MULTILABEL: Task.MULTILABEL,
}
_POOLINGS = {
    learner_pb2.POOLING_UNSPECIFIED: Pooling.MEAN,
    learner_pb2.POOLING_MEAN: Pooling.MEAN,
    learner_pb2.POOLING_CLS: Pooling.CLS,
}
_ORIGINS = {
    Origin.CANDIDATE: common_pb2.PICK_ORIGIN_CANDIDATE,
    Origin.EXPLORATION: common_pb2.PICK_ORIGIN_EXPLORATION,
    Origin.FILL: common_pb2.PICK_ORIGIN_FILL,
}

RequestT = TypeVar(
    "RequestT",
    learner_pb2.TrainRequest,
    learner_pb2.CrossPredictRequest,
    learner_pb2.PropagateRequest,
    learner_pb2.SelectRequest,
    learner_pb2.EvaluateRequest,
    learner_pb2.EmbedRequest,
)


def header_first(requests: Iterable[RequestT]) -> tuple[RequestT, Iterator[RequestT]]:
    """Return a stream's first message, and all its messages, that one included.

    Raises
    ------
    InvalidArgument
        The first message has no header; or, while the messages are taken, a later one has.
    """
    messages = iter(requests)
    first = next(messages, None)
    if first is None or not first.HasField("header"):
        raise InvalidArgument("header", "is missing from the first message")

    def rest() -> Iterator[RequestT]:
        yield first
        for message in messages:
            if message.HasField("header"):
                raise InvalidArgument("header", "stands in a message after the first")
            yield message

    return first, rest()


def read_examples(
    requests: Iterable[
        learner_pb2.TrainRequest
        | learner_pb2.EvaluateRequest
        | learner_pb2.CrossPredictRequest
        | learner_pb2.PropagateRequest
    ],
    *,
    limit: int,
) -> LabelledItems:
    """Gather the labelled items of a stream."""
    ids: list[ItemId] = []
    labels: list[Sequence[int]] = []
    seen: set[str] = set()
    for request in requests:
        batch = from_labelled_batch(request.examples)
        ids += check_ids("examples.ids", batch.ids, seen=seen)
        labels += batch.labels
        _check_count("examples.ids", len(ids), limit)
    return LabelledItems(ids=ids, labels=labels)


def read_labelled_set(requests: Iterable[learner_pb2.SelectRequest], *, limit: int) -> LabelledSet:
    """Gather the labelled and excluded ids of a Select."""
    expands: dict[ItemId, bool] = {}
    classes: dict[ItemId, tuple[int, ...]] = {}
    excluded: list[ItemId] = []
    seen_labelled: set[str] = set()
    seen_excluded: set[str] = set()
    for request in requests:
        ids = check_ids("labelled_ids", request.labelled_ids, seen=seen_labelled)
        if len(request.expand_from) != len(ids):
            raise InvalidArgument("expand_from", f"has {len(request.expand_from):,} entries for {len(ids):,} ids")
        expands.update(zip(ids, request.expand_from, strict=True))
        classes.update(_read_classes(request))
        excluded += check_ids("excluded_ids", request.excluded_ids, seen=seen_excluded)
        _check_count("labelled_ids", len(expands), limit)
        _check_count("excluded_ids", len(excluded), limit)
    if classes and len(classes) != len(expands):
        raise InvalidArgument("label_counts", f"are given for {len(classes):,} of {len(expands):,} labelled ids")
    return LabelledSet(expands=expands, excluded=excluded, classes=classes)


def _read_classes(request: learner_pb2.SelectRequest) -> dict[ItemId, tuple[int, ...]]:
    if not request.label_counts and not request.labels:
        return {}
    if len(request.label_counts) != len(request.labelled_ids):
        problem = f"has {len(request.label_counts):,} entries for {len(request.labelled_ids):,} ids"
        raise InvalidArgument("label_counts", problem)
    ends = list(accumulate(request.label_counts))
    if (ends[-1] if ends else 0) != len(request.labels):
        raise InvalidArgument("labels", f"has {len(request.labels):,} entries, not what label_counts add up to")
    labels = list(request.labels)
    return {
        ItemId(item_id): tuple(labels[end - number : end])
        for item_id, number, end in zip(request.labelled_ids, request.label_counts, ends, strict=True)
    }


def _check_count(field: str, count: int, limit: int) -> None:
    if count > limit:
        raise ResourceExhausted(f"{field}: more ids", limit=limit, setting="max_examples")


def read_train_header(header: learner_pb2.TrainHeader) -> TrainOrder:
    """Check a Train header and fill in its defaults."""
    return TrainOrder(
        campaign=check_name("header.campaign", header.campaign),
        round=header.round,
        pool=check_name("header.pool", header.pool),
        problem=_read_problem(header),
        model=read_model(header.model),
        seed=header.seed,
    )


def read_select_header(header: learner_pb2.SelectHeader, *, max_batch: int) -> SelectOrder:
    """Check a Select header and fill in its defaults."""
    if not 1 <= header.batch_size <= max_batch:
        raise InvalidArgument(
            "header.batch_size", f"{header.batch_size:,} is not 1 to {max_batch:,} (setting max_batch)"
        )
    if not 0 <= header.exploration <= 1:
        raise InvalidArgument("header.exploration", f"{header.exploration} is not between 0 and 1")
    return SelectOrder(
        campaign=check_name("header.campaign", header.campaign),
        round=header.round,
        pool=check_name("header.pool", header.pool),
        strategy=read_strategy(header.strategy),
        policy=_check_growth(header.policy),
        batch_size=header.batch_size,
        exploration=header.exploration,
        fill_random=header.fill_random,
        seed=header.seed,
        problem=_read_problem(header) if header.without_model else None,
    )


def read_propagate_header(header: learner_pb2.PropagateHeader) -> PropagateOrder:
    """Check a Propagate header and fill in its defaults."""
    alpha = header.alpha or 0.9
    if not 0 < alpha < 1:
        raise InvalidArgument("header.alpha", f"{alpha:g} is not between 0 and 1")
    return PropagateOrder(
        pool=check_name("header.pool", header.pool),
        problem=_read_problem(header),
        k=header.k or 10,
        alpha=alpha,
        max_iterations=header.max_iterations or 100,
    )


def _read_problem(
    header: learner_pb2.TrainHeader | learner_pb2.SelectHeader | learner_pb2.PropagateHeader,
) -> Problem:
    task = look_up(_TASKS, header.task, "header.task")
    return check_problem(Problem(task=task, classes=tuple(header.classes)))


def _check_growth(policy: common_pb2.PolicySpec) -> common_pb2.PolicySpec:
    """Return a policy whose growth, which is ours to do, is one that it can have; the rest the index server checks."""
    if policy.growth not in common_pb2.CandidateGrowth.values():
        raise InvalidArgument("header.policy.growth", f"{policy.growth} is not one of its values")
    if policy.growth == common_pb2.CANDIDATE_GROWTH_PICK and policy.name not in ("", _GROWS_BY_PICK):
        problem = f"only {_GROWS_BY_PICK} grows after each pick, not {policy.name[:140]!r}"
        raise InvalidArgument("header.policy.growth", problem)
    return policy


def read_embed_header(header: learner_pb2.EmbedHeader) -> EmbedOptions:
    """Check an Embed header."""
    return EmbedOptions(
        encoder=header.encoder,
        pooling=look_up(_POOLINGS, header.pooling, "header.pooling"),
        normalize=header.normalize,
        max_tokens=header.max_tokens,
    )


def to_train_result(outcome: TrainOutcome) -> learner_pb2.TrainResult:
    """Encode the result of a training."""
    info = outcome.info
    return learner_pb2.TrainResult(
        examples=info.examples,
        missing=info.missing,
        iterations=info.iterations,
        loss=info.loss,
        train_seconds=outcome.train_seconds,
        fetch_seconds=outcome.fetch_seconds,
        from_checkpoint=outcome.from_checkpoint,
        pool_version=info.pool_version,
        validation_examples=info.validation_examples,
        validation_score=math.nan if info.validation_score is None else info.validation_score,
        warm_from_round=info.warm_from_round,
        calibration=None if info.calibration is None else learner_pb2.Calibration(**asdict(info.calibration)),
        notes=info.notes,
    )


def to_select_response(selection: Selection) -> learner_pb2.SelectResponse:
    """Encode the batch of a round."""
    return learner_pb2.SelectResponse(
        ids=[pick.id for pick in selection.picks],
        scores=[pick.score for pick in selection.picks],
        origins=[_ORIGINS[pick.origin] for pick in selection.picks],
        candidates=selection.info,
        expand_seconds=selection.expand_seconds,
        score_seconds=selection.score_seconds,
        pool_version=selection.pool_version,
        strategy=selection.strategy,
        strategy_reason=selection.strategy_reason,
    )


def to_evaluate_response(evaluation: Evaluation) -> learner_pb2.EvaluateResponse:
    """Encode the quality of a model."""
    quality = evaluation.quality
    return learner_pb2.EvaluateResponse(
        quality=common_pb2.Quality(
            items=quality.items,
            accuracy=quality.accuracy,
            macro_f1=quality.macro_f1,
            micro_f1=quality.micro_f1,
            macro_roc_auc=quality.macro_roc_auc,
            mean_average_precision=quality.mean_average_precision,
            expected_calibration_error=quality.expected_calibration_error,
            classes=[
                common_pb2.ClassQuality(
                    name=one.name,
                    support=one.support,
                    average_precision=one.average_precision,
                    roc_auc=one.roc_auc,
                    f1=one.f1,
                    positives_found=found,
                )
                for one, found in zip(quality.classes, evaluation.positives_found, strict=True)
            ],
        ),
        missing=evaluation.missing,
        seconds=evaluation.seconds,
        pool_version=evaluation.pool_version,
    )
