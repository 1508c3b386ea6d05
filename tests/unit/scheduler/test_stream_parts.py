"""Parts of streams: the spec, drift, the grouping of messages."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from scheduler.domain.stream_spec import check_stream
from scheduler.streams.drift import WINDOW, DriftWatch
from scheduler.streams.gathering import gathered
from scheduler.streams.judging import predicted, uncertainty
from sealpool.errors import InvalidArgument
from sealpool.v1 import common_pb2, learner_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.world import make_spec


@pytest.mark.parametrize(
    ("stream", "field"),
    [
        (pb.StreamSpec(threshold=pb.StreamThreshold.ValueType(9)), "spec.stream.threshold"),
        (pb.StreamSpec(threshold=pb.STREAM_THRESHOLD_BUDGETED), "spec.stream.horizon"),
        (pb.StreamSpec(horizon=5), "spec.stream.horizon"),
        (pb.StreamSpec(threshold=pb.STREAM_THRESHOLD_FIXED, step=0.1), "spec.stream.step"),
        (
            pb.StreamSpec(threshold=pb.STREAM_THRESHOLD_BUDGETED, horizon=9, budget_share=0.1),
            "spec.stream.budget_share",
        ),
        (pb.StreamSpec(uncertainty=1.5), "spec.stream.uncertainty"),
        (pb.StreamSpec(step=float("nan")), "spec.stream.step"),
        (pb.StreamSpec(budget_share=-0.1), "spec.stream.budget_share"),
        (pb.StreamSpec(random_share=1), "spec.stream.random_share"),
        (pb.StreamSpec(encoder=learner_pb2.EmbedHeader(normalize=True)), "spec.stream.encoder.encoder"),
    ],
)
def test_a_stream_spec_that_is_wrong_is_refused_with_its_field(stream: pb.StreamSpec, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_stream(make_spec(stream=stream))
    assert caught.value.field == field


def test_a_campaign_without_a_stream_has_nothing_to_check() -> None:
    check_stream(make_spec())


def watch(values: "np.ndarray[tuple[int], np.dtype[np.float64]]", drift: DriftWatch, *, first: int = 1) -> None:
    for seen, value in enumerate(values, first):
        drift.add(float(value), seen=seen)


def test_a_change_of_the_mean_is_found_soon_and_once() -> None:
    randomness = np.random.default_rng(0)
    drift = DriftWatch()
    watch(randomness.uniform(0.0, 0.4, size=5_000), drift)
    assert drift.drifts == 0
    watch(randomness.uniform(0.2, 0.6, size=2_000), drift, first=5_001)
    assert drift.drifts >= 1
    assert 5_000 < drift.last_drift_at < 5_700
    assert len(drift.recent) <= WINDOW + 32


def test_a_stream_without_a_change_has_no_drift() -> None:
    drift = DriftWatch()
    watch(np.random.default_rng(1).beta(2, 5, size=20_000), drift)
    assert drift.drifts == 0


def test_drift_is_found_at_the_same_item_however_often_it_was_stored() -> None:
    randomness = np.random.default_rng(2)
    values = np.concatenate([randomness.uniform(0, 0.3, size=700), randomness.uniform(0.3, 0.5, size=500)])
    whole, cut = DriftWatch(), DriftWatch()
    watch(values, whole)
    for start in range(0, len(values), 7):
        cut = DriftWatch(recent=DriftWatch.unpacked(cut.packed()), drifts=cut.drifts, last_drift_at=cut.last_drift_at)
        watch(values[start : start + 7], cut, first=start + 1)
    assert cut == whole
    assert whole.drifts >= 1


def test_doubt_is_told_of_the_most_doubtful_label() -> None:
    row = np.array([0.9, 0.3, 0.05], np.float32)
    assert uncertainty(common_pb2.TASK_KIND_MULTILABEL, row) == pytest.approx(0.3)
    assert predicted(common_pb2.TASK_KIND_MULTILABEL, row) == (0,)
    one_of = np.array([0.2, 0.7, 0.1], np.float32)
    assert uncertainty(common_pb2.TASK_KIND_MULTICLASS, one_of) == pytest.approx(0.3)
    assert predicted(common_pb2.TASK_KIND_MULTICLASS, one_of) == (1,)


def test_messages_are_taken_together_in_order_and_an_error_comes_after_them() -> None:
    def messages() -> Iterator[int]:
        yield from range(10)
        raise InvalidArgument("item", "is wrong")

    groups = gathered(messages(), most=4, wait_s=10)
    assert [next(groups) for _ in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    with pytest.raises(InvalidArgument):
        next(groups)


def test_a_closed_gathering_ends_its_reader() -> None:
    ended = threading.Event()

    def messages() -> Iterator[int]:
        try:
            yield from range(10_000_000)
        finally:
            ended.set()

    groups = gathered(messages(), most=3, wait_s=0.01)
    assert next(groups) == [0, 1, 2]
    groups.close()
    assert ended.wait(20)


def test_a_message_is_not_held_back_for_the_next() -> None:
    more = threading.Event()

    def messages() -> Iterator[int]:
        yield 1
        assert more.wait(20)
        yield 2

    groups = gathered(messages(), most=8, wait_s=0.001)
    assert next(groups) == [1]
    more.set()
    assert list(groups) == [[2]]
