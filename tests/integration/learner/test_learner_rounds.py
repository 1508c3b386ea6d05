"""Train, evaluate, select and predict through a real server."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sealpool.client import LearnerClient
from sealpool.errors import FailedPrecondition, NotFound, Unavailable
from sealpool.types import ItemId, LabelledItems
from sealpool.v1 import common_pb2, index_pb2, learner_pb2
from tests.support.fake_index import FakeIndex
from tests.support.learner_requests import item_ids, labelled, select, select_header, train, train_header

Serve = Callable[..., LearnerClient]
CANDIDATE = common_pb2.PICK_ORIGIN_CANDIDATE
EXPLORATION = common_pb2.PICK_ORIGIN_EXPLORATION
FILL = common_pb2.PICK_ORIGIN_FILL


def test_a_round_trains_measures_and_picks(client: LearnerClient) -> None:
    progress: list[learner_pb2.TrainProgress] = []
    result = client.train(train_header(), labelled(range(9)), on_progress=progress.append)
    assert (result.examples, result.missing, result.from_checkpoint) == (9, 0, False)
    assert progress
    assert progress[-1].loss == pytest.approx(result.loss, rel=1e-6)

    answer = client.evaluate(learner_pb2.EvaluateHeader(campaign="c", round=0, pool="pool"), labelled(range(30, 90)))
    assert answer.quality.items == 60
    assert answer.quality.accuracy > 0.8
    assert [one.name for one in answer.quality.classes] == ["red", "green", "blue"]
    assert [one.positives_found for one in answer.quality.classes] == [3, 3, 3]

    picks = select(client)
    assert len(set(picks.ids)) == 10
    assert not set(picks.ids) & set(item_ids(range(9)))
    assert set(picks.origins) == {CANDIDATE}
    assert list(picks.scores) == sorted(picks.scores, reverse=True)
    assert picks.candidates.size == picks.candidates.added > 10


def test_training_again_is_answered_from_the_checkpoint(client: LearnerClient, index: FakeIndex) -> None:
    first = train(client)
    index.put("item-200", [0, 0, 0, 1])
    backwards = LabelledItems(ids=item_ids(range(8, -1, -1)), labels=[[n % 3] for n in range(8, -1, -1)])
    again = client.train(train_header(), backwards)
    assert again.from_checkpoint
    assert again.train_seconds == 0
    assert (again.loss, again.iterations, again.pool_version) == (first.loss, first.iterations, first.pool_version)
    assert not train(client, range(10)).from_checkpoint
    assert not train(client, range(10), seed=2).from_checkpoint
    index.created_s += 1  # another pool of the same name
    assert not train(client, range(10), seed=2).from_checkpoint


def test_examples_that_the_pool_lost_are_counted(client: LearnerClient, index: FakeIndex) -> None:
    index.delete("item-003")
    result = train(client)
    assert (result.examples, result.missing) == (8, 1)
    answer = client.evaluate(learner_pb2.EvaluateHeader(campaign="c", round=0, pool="pool"), labelled(range(3, 12)))
    assert (answer.quality.items, answer.missing) == (8, 1)


def test_vectors_are_read_once_and_again_when_the_pool_changed(client: LearnerClient, index: FakeIndex) -> None:
    train(client)
    train(client, range(12), round=1)
    reads = [ids for call, ids in index.calls if call == "get_items"]
    assert [len(ids) for ids in reads] == [9, 3]
    index.put("item-001", [9, 9, 9, 9])
    train(client, range(12), round=2)
    assert [len(ids) for call, ids in index.calls if call == "get_items"] == [9, 3, 12]


def test_only_new_labels_are_told_and_what_is_held_follows(client: LearnerClient, index: FakeIndex) -> None:
    train(client)
    select(client)
    train(client, range(12), round=1)
    second = select(client, range(12), round=1)
    assert [len(ids) for call, ids in index.calls if call == "expand"] == [9, 3]
    assert second.candidates.labelled == 12
    again = select(client, range(12), round=1)
    assert again.ids == second.ids
    assert again.candidates == second.candidates


def test_an_item_whose_label_was_corrected_to_a_class_of_interest_brings_its_neighbours(
    client: LearnerClient, index: FakeIndex
) -> None:
    train(client)
    before = select(client, expand=False, fill_random=False)
    assert before.candidates.size == 0
    train(client, round=1)
    after = select(client, expand=True, round=1)
    assert after.candidates.size > 0
    assert [len(ids) for call, ids in index.calls if call == "expand"] == [9, 9]
    select(client, expand=True, round=1)
    assert [len(ids) for call, ids in index.calls if call == "expand"] == [9, 9, 0]


def test_a_fresh_learner_with_candidates_in_another_order_picks_the_same(serve: Serve, index: FakeIndex) -> None:
    # Equal items: only a draw that belongs to the id can tell them apart.
    for number in range(40):
        index.put(f"twin-{number}", [0.3, 0.3, 0.3, 0.0])
    picks = {}
    for name in ("random", "entropy", "margin", "least_confidence", "information_density"):
        for folder, backwards in (("one", False), ("two", True)):
            index.campaigns.clear()
            index.backwards = backwards
            learner = serve(index, folder=f"{folder}-{name}")
            train(learner)
            if not backwards:  # in two steps, so that slots differ too
                select(learner, range(4), strategy=common_pb2.StrategySpec(name=name))
            picks[folder] = select(learner, strategy=common_pb2.StrategySpec(name=name))
        assert picks["one"].ids == picks["two"].ids, name
        assert picks["one"].scores == picks["two"].scores, name


def test_ties_go_by_the_seed(client: LearnerClient, index: FakeIndex) -> None:
    for number in range(40):
        index.put(f"twin-{number}", [0.3, 0.3, 0.3, 0.0])
    train(client)
    policy = common_pb2.PolicySpec(name="full")
    assert select(client, seed=1, policy=policy).ids != select(client, seed=2, policy=policy).ids
    assert select(client, seed=1, policy=policy).ids == select(client, seed=1, policy=policy).ids


def test_excluded_items_are_never_picked(client: LearnerClient) -> None:
    train(client)
    first = select(client, exploration=0.5, fill_random=True)
    second = select(client, exploration=0.5, fill_random=True, excluded=[ItemId(i) for i in first.ids])
    assert not set(first.ids) & set(second.ids)
    assert len(set(second.ids)) == 10


@pytest.mark.parametrize(("exploration", "count"), [(0.0, 0), (0.24, 2), (0.25, 3), (1.0, 10)])
def test_the_exploration_share_is_rounded_to_whole_items(client: LearnerClient, exploration: float, count: int) -> None:
    train(client)
    picks = select(client, exploration=exploration)
    assert list(picks.origins) == [CANDIDATE] * (10 - count) + [EXPLORATION] * count
    assert list(picks.scores[10 - count :]) == [0] * count
    assert len(set(picks.ids)) == 10


def test_candidates_take_the_places_where_nothing_is_left_to_explore(client: LearnerClient) -> None:
    train(client)
    picks = select(client, exploration=0.5, policy=common_pb2.PolicySpec(name="full"))
    assert list(picks.origins) == [CANDIDATE] * 10


def test_a_short_candidate_pool_is_filled_only_if_asked(client: LearnerClient) -> None:
    train(client)
    policy = common_pb2.PolicySpec(k=1)
    alone = select(client, policy=policy, batch_size=30)
    assert 0 < len(alone.ids) < 30
    filled = select(client, policy=policy, batch_size=30, fill_random=True)
    assert list(filled.ids[: len(alone.ids)]) == list(alone.ids)
    assert list(filled.origins) == [CANDIDATE] * len(alone.ids) + [FILL] * (30 - len(alone.ids))
    assert len(set(filled.ids)) == 30


def test_labels_that_bring_no_neighbours_leave_the_pool_of_candidates_empty(client: LearnerClient) -> None:
    train(client)
    assert list(select(client, expand=False).ids) == []


def test_a_labelled_item_deleted_from_the_pool_stops_nothing(client: LearnerClient, index: FakeIndex) -> None:
    train(client)
    index.delete("item-003")
    assert len(select(client).ids) == 10


def test_a_candidate_pool_begun_anew_is_told_everything_again(client: LearnerClient, index: FakeIndex) -> None:
    train(client)
    for numbers in (range(3), range(6), range(9)):
        before = select(client, numbers)
    index.campaigns.clear()
    index.calls.clear()
    assert select(client, range(9)).ids == before.ids
    assert [len(ids) for call, ids in index.calls if call == "expand"] == [0, 9]


def test_replaced_and_deleted_candidates_follow_the_pool(client: LearnerClient, index: FakeIndex) -> None:
    train(client)
    first = select(client)
    index.delete(first.ids[0])
    index.put(first.ids[1], [50, 0, 0, 0])  # beyond doubt
    second = select(client)
    assert not {first.ids[0], first.ids[1]} & set(second.ids)


def test_information_density_over_candidates_and_pool_differ(client: LearnerClient, index: FakeIndex) -> None:
    train(client)
    scores = []
    for over in (common_pb2.DENSITY_OVER_CANDIDATES, common_pb2.DENSITY_OVER_POOL):
        strategy = common_pb2.StrategySpec(name="information_density", density_over=over, beta=1)
        scores.append(list(select(client, range(3), strategy=strategy).scores))
    assert scores[0] != scores[1]


def test_predictions_are_the_same_from_ids_vectors_and_the_whole_pool(client: LearnerClient, index: FakeIndex) -> None:
    train(client)
    ids = list(index.vectors)
    by_ids = list(client.predict("c", ids=ids))
    by_vectors = list(client.predict("c", round=0, vectors=np.stack([index.vectors[i] for i in ids])))
    whole = list(client.predict("c"))
    assert by_ids[0].classes == ["red", "green", "blue"]
    assert [i for chunk in by_ids for i in chunk.ids] == ids
    probabilities = np.concatenate([chunk.probabilities for chunk in by_ids])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    for other in (by_vectors, whole):
        np.testing.assert_allclose(np.concatenate([c.probabilities for c in other]), probabilities, atol=1e-6)
    assert [i for chunk in whole for i in chunk.ids] == ids


def test_predict_without_a_round_takes_the_latest(client: LearnerClient) -> None:
    train(client, round=2)
    train(client, round=11)
    (chunk,) = client.predict("c", ids=["item-001"])
    assert chunk.round == 11


def test_multilabel_campaigns_go_the_same_way(client: LearnerClient) -> None:
    examples = LabelledItems(ids=item_ids(range(12)), labels=[[n % 3] if n % 4 else [] for n in range(12)])
    header = train_header(task=common_pb2.TASK_KIND_MULTILABEL)
    assert client.train(header, examples).examples == 12
    picks = select(client, range(12))
    assert len(picks.ids) == 10
    (chunk,) = client.predict("c", ids=["item-001"])
    assert chunk.probabilities.shape == (1, 3)


def test_a_damaged_checkpoint_is_refused_and_trained_again(client: LearnerClient, tmp_path: Path) -> None:
    train(client)
    (path,) = (tmp_path / "data/campaigns/c").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(FailedPrecondition, match="damaged"):
        select(client)
    assert not train(client).from_checkpoint
    assert len(select(client).ids) == 10


def test_candidates_of_idle_campaigns_are_dropped_past_the_limit_and_come_back(serve: Serve, index: FakeIndex) -> None:
    client = serve(index, candidate_cache_bytes=0)
    picks = {}
    for campaign in ("a", "b", "a"):
        train(client, campaign=campaign)
        answer = select(client, campaign=campaign)
        assert picks.setdefault(campaign, answer.ids) == answer.ids
    told = [len(ids) for call, ids in index.calls if call == "expand"]
    assert told == [9, 9, 9]


def test_a_pool_that_is_still_being_read_is_unavailable_not_empty(client: LearnerClient, index: FakeIndex) -> None:
    train(client)
    header = learner_pb2.EvaluateHeader(campaign="c", round=0, pool="pool")
    for state, error in (
        (index_pb2.POOL_STATE_LOADING, Unavailable),
        (index_pb2.POOL_STATE_FAILED, FailedPrecondition),
    ):
        index.state = state
        for call in (
            lambda: train(client, round=1),
            lambda: select(client),
            lambda: client.evaluate(header, labelled([1])),
            lambda: list(client.predict("c")),
        ):
            with pytest.raises(error, match="cannot be used" if error is FailedPrecondition else "being read"):
                call()


def test_vectors_beyond_the_model_are_refused_not_answered_with_nan(client: LearnerClient, index: FakeIndex) -> None:
    train(client)
    index.put("item-050", [3e38, -3e38, 3e38, 3e38])
    header = learner_pb2.EvaluateHeader(campaign="c", round=0, pool="pool")
    for call in (
        lambda: client.evaluate(header, labelled(range(45, 55))),
        lambda: list(client.predict("c", ids=["item-050"])),
        lambda: select(client, policy=common_pb2.PolicySpec(name="full")),
    ):
        with pytest.raises(FailedPrecondition, match="overflows"):
            call()


def test_nothing_is_found_where_nothing_is(client: LearnerClient) -> None:
    with pytest.raises(NotFound, match="checkpoint"):
        select(client)
    with pytest.raises(NotFound, match="checkpoint"):
        client.evaluate(learner_pb2.EvaluateHeader(campaign="c", round=0, pool="pool"), labelled(range(3)))
    with pytest.raises(NotFound, match="checkpoint"):
        list(client.predict("c", ids=["item-001"]))
    train(client)
    for call in (
        lambda: train(client, pool="nowhere"),
        lambda: select(client, pool="nowhere"),
        lambda: client.evaluate(learner_pb2.EvaluateHeader(campaign="c", round=0, pool="nowhere"), labelled([1])),
        lambda: list(client.predict("c", pool="nowhere")),
    ):
        with pytest.raises(NotFound, match="pool"):
            call()
    with pytest.raises(NotFound, match="item"):
        list(client.predict("c", ids=["item-001", "ghost"]))
    with pytest.raises(NotFound, match="checkpoint"):
        client.select(select_header(round=5), item_ids(range(9)), [True] * 9, [])
