"""Campaigns from their first round to their last, over real gRPC and a real database, with fakes behind."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from scheduler.domain.answers import Answer
from scheduler.domain.states import LabelPurpose
from scheduler.labelling import commit_answers
from scheduler.storage import campaigns
from sealpool.errors import DeadlineExceeded, FailedPrecondition, InternalError, NotFound, Unavailable
from sealpool.types import ItemId, Payload
from sealpool.v1 import common_pb2, scheduler_pb2
from tests.unit.scheduler.world import DATASET, World, make_spec


def run_to_the_end(world: World, name: str) -> list[scheduler_pb2.Round]:
    while world.client.get_campaign(name).state == scheduler_pb2.CAMPAIGN_STATE_ACTIVE:
        world.client.run_round(name)
    return world.client.list_rounds(name)


def test_people_label_a_campaign_to_its_end(world: World) -> None:
    created = world.client.create_campaign(make_spec(evaluation_pool="held-out", expand_from_classes=["b"]))
    assert created.state == scheduler_pb2.CAMPAIGN_STATE_ACTIVE
    assert not created.HasField("last_round")
    held_out = {item: [world.truth(item)] for item in world.index.pools["held-out"]}
    world.client.submit_labels("c", held_out, annotator="ann", purpose=scheduler_pb2.LABEL_PURPOSE_EVALUATION)

    first = world.client.run_round("c").round
    assert (first.number, first.labels, first.picks) == (0, 0, 6)
    campaign = world.client.get_campaign("c")
    assert (campaign.open_tasks, campaign.leased_tasks, campaign.labels, campaign.rounds) == (6, 0, 0, 1)

    while campaign.state == scheduler_pb2.CAMPAIGN_STATE_ACTIVE:
        world.label()
        world.client.run_round("c")
        campaign = world.client.get_campaign("c")

    rounds = world.client.list_rounds("c")
    assert [(r.number, r.labels, r.picks) for r in rounds] == [(0, 0, 6), (1, 6, 5), (2, 11, 5), (3, 16, 4), (4, 20, 0)]
    assert all(r.state == scheduler_pb2.ROUND_STATE_FINISHED for r in rounds)
    assert [r.quality.items for r in rounds] == [0, 12, 12, 12, 12]
    assert rounds[1].candidates.size == 54
    assert rounds[1].seconds.expand == 0.5
    assert rounds[1].seconds.evaluate == 0.125
    assert campaign.state == scheduler_pb2.CAMPAIGN_STATE_COMPLETED
    assert (campaign.labels, campaign.rounds, campaign.open_tasks) == (20, 5, 0)
    picked = [item for items in world.picks().values() for item in items]
    assert len(picked) == len(set(picked)) == 20

    header, labelled, expand_from, excluded = world.learner.selected[0]
    assert (header.batch_size, header.round, header.fill_random) == (5, 1, True)
    assert expand_from == [world.truth(item) == "b" for item in labelled]
    assert world.learner.told_classes[0] == {item: (int(world.truth(item) == "b"),) for item in labelled}
    assert excluded == []


def test_the_data_set_oracle_labels_a_campaign_to_its_end(world: World) -> None:
    world.client.create_campaign(make_spec(oracle=DATASET, evaluation_pool="held-out"))
    rounds = run_to_the_end(world, "c")
    assert [r.labels for r in rounds] == [0, 6, 11, 16, 20]
    assert [r.quality.items for r in rounds] == [0, 12, 12, 12, 12]
    log = world.labels()
    assert [label.annotator for label in log] == ["dataset"] * 20
    assert all(label.classes == [world.truth(label.item_id)] for label in log)
    assert not any(label.unsolicited or label.corrects for label in log)
    assert len(world.labels(purpose=scheduler_pb2.LABEL_PURPOSE_EVALUATION)) == 12
    assert world.index.troubles.calls.count("scan_items") == 1
    with pytest.raises(FailedPrecondition, match="budget is spent"):
        world.client.run_round("c")


def test_the_same_seed_picks_the_same_items(make_world: Callable[..., World]) -> None:
    picks = []
    for seed in (1, 1, 2):
        world = make_world()
        world.client.create_campaign(make_spec(oracle=DATASET, seed=seed))
        run_to_the_end(world, "c")
        picks.append(world.picks())
    assert picks[0] == picks[1] != picks[2]


def test_postgresql_runs_a_campaign_like_sqlite(
    world: World, make_world: Callable[..., World], postgres_url: str
) -> None:
    other = make_world(database_url=postgres_url)
    for each in (world, other):
        each.client.create_campaign(make_spec(oracle=DATASET, evaluation_pool="held-out"))
        run_to_the_end(each, "c")
        each.client.create_campaign(make_spec(name="timed", rule=scheduler_pb2.RoundRule(interval_seconds=3600)))
    assert world.picks() == other.picks()
    other.restart()
    assert other.client.get_campaign("c").rounds == 5


def test_the_callers_own_labels_begin_a_campaign_without_a_seed_set(world: World) -> None:
    world.client.create_campaign(make_spec(seed_size=0))
    with pytest.raises(FailedPrecondition, match="no label has arrived"):
        world.client.run_round("c")
    world.client.submit_labels("c", {"i000": ["a"], "i001": ["b"]}, annotator="ann")
    answer = world.client.run_round("c")
    assert (answer.round.number, answer.round.labels, answer.round.picks) == (1, 2, 5)


def test_items_handed_out_and_not_labelled_are_not_picked_again(world: World) -> None:
    world.client.create_campaign(make_spec())
    world.client.run_round("c")
    leased = [task.item_id for task in world.client.lease_tasks("c", annotator="x", max_tasks=6).tasks]
    world.client.submit_labels("c", {item: [world.truth(item)] for item in leased[:4]}, annotator="x")
    answer = world.client.run_round("c")
    _, labelled, _, excluded = world.learner.selected[-1]
    assert set(labelled) == set(leased[:4])
    assert set(excluded) == set(leased[4:])
    assert answer.round.picks == 5


def test_labels_of_one_class_wait_for_people_and_do_not_fail_the_campaign(world: World) -> None:
    world.client.create_campaign(make_spec())
    world.client.run_round("c")
    items = [task.item_id for task in world.client.lease_tasks("c", annotator="x", max_tasks=6).tasks]
    world.client.submit_labels("c", {item: ["a"] for item in items}, annotator="x")
    with pytest.raises(FailedPrecondition, match="cannot train a model: all 6 labelled items are of class 'a'"):
        world.client.run_round("c")
    assert len(world.client.list_rounds("c")) == 1
    world.client.submit_labels("c", {items[0]: ["b"]}, annotator="x")
    assert world.client.run_round("c").round.labels == 6


def test_a_service_that_is_away_leaves_the_round_where_it_is(world: World) -> None:
    world.client.create_campaign(make_spec(oracle=DATASET))
    world.client.run_round("c")
    for method in ("train", "select"):
        world.learner.troubles.always(method, Unavailable("learner is restarting"))
        with pytest.raises(Unavailable, match="restarting"):
            world.client.run_round("c")
        last = world.client.get_campaign("c").last_round
        assert (last.number, last.error) == (1, "learner is restarting")
        world.learner.troubles.always(method, None)
    world.index.troubles.always("get_items", Unavailable("index is restarting"))
    with pytest.raises(Unavailable):
        world.client.run_round("c")
    world.index.troubles.always("get_items", None)
    answer = world.client.run_round("c").round
    assert (answer.number, answer.state, answer.error) == (1, scheduler_pb2.ROUND_STATE_FINISHED, "")
    assert len(world.learner.trained) == 1


def test_short_troubles_are_ridden_out(make_world: Callable[..., World]) -> None:
    world = make_world(retry_for_s=5)
    world.client.create_campaign(make_spec(oracle=DATASET))
    world.client.run_round("c")
    world.learner.troubles.once("train", Unavailable("away"), DeadlineExceeded("slow"))
    assert world.client.run_round("c").round.number == 1


def test_a_round_goes_on_within_a_second_or_two_of_its_services_return(make_world: Callable[..., World]) -> None:
    world = make_world(retry_for_s=30)
    world.client.create_campaign(make_spec(oracle=DATASET))
    world.client.run_round("c")
    world.learner.troubles.always("train", Unavailable("away"))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(world.client.run_round, "c")
        while world.learner.troubles.calls.count("train") < 6:  # 0.1 + 0.2 + 0.4 + 0.8 + 1 s
            assert not running.done()
            time.sleep(0.01)
        world.learner.troubles.always("train", None)
        back = time.monotonic()
        running.result()
        assert time.monotonic() - back < 2


@pytest.mark.parametrize("method", ["train", "select"])
def test_a_lasting_error_fails_the_round_and_the_next_one_takes_up_its_labels(world: World, method: str) -> None:
    world.client.create_campaign(make_spec())
    world.client.run_round("c")
    world.label()
    world.learner.troubles.once(method, NotFound("pool", "pool"))
    with pytest.raises(FailedPrecondition, match="no such pool: 'pool'"):
        world.client.run_round("c")
    failed = world.client.get_campaign("c").last_round
    assert failed.state == scheduler_pb2.ROUND_STATE_FAILED
    assert "no such pool" in failed.error
    answer = world.client.run_round("c").round
    assert (answer.number, answer.labels) == (2, 6)


def test_a_learner_that_picks_what_was_handed_out_fails_the_round(world: World) -> None:
    world.client.create_campaign(make_spec())
    world.client.run_round("c")
    items = world.label(count=3)
    open_item = next(item for item in world.picks()[0] if item not in items)
    while len({world.truth(item) for item in items}) < 2:
        items += world.label(count=1)
    original = world.learner.select

    def repeat(*arguments, **options):  # type: ignore[no-untyped-def]
        answer = original(*arguments, **options)
        answer.ids[0] = open_item
        return answer

    world.learner.select = repeat  # type: ignore[method-assign]
    with pytest.raises(FailedPrecondition, match="had been handed out"):
        world.client.run_round("c")


def test_an_item_labelled_while_its_round_ran_is_not_handed_out(world: World) -> None:
    world.client.create_campaign(make_spec())
    world.client.run_round("c")
    world.label()
    release = world.learner.troubles.hold("select")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(world.client.run_round, "c")
        assert world.learner.troubles.reached["select"].wait(10)
        everything = {i: [world.truth(i)] for i in list(world.index.pools["pool"])[:60] if i not in world.picks()[0]}
        some = dict(list(everything.items())[:14])
        world.client.submit_labels("c", some, annotator="eager")
        release()
        running.result()
    waiting = {task.item_id for task in world.client.lease_tasks("c", annotator="x", max_tasks=10).tasks}
    assert waiting == set(world.picks()[1]) - set(some)


def test_labels_given_while_the_data_set_oracle_is_asked_stand_and_its_own_keep_to_the_budget(world: World) -> None:
    world.client.create_campaign(make_spec(oracle=DATASET))
    world.client.run_round("c")
    world.client.run_round("c")
    release = world.index.troubles.hold("get_items")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(world.client.run_round, "c")
        assert world.index.troubles.reached["get_items"].wait(10)
        picked = [item for items in world.picks().values() for item in items]
        free = [item for item in world.index.pools["pool"] if item not in picked][:6]
        asked = ItemId(picked[-1])
        # The round has the oracle's answer before this commits, and cannot write it down until then.
        with world.scheduler.store.writing() as session:
            release()
            commit_answers(
                session,
                campaigns.lock(session, "c"),
                [
                    Answer(item_id=asked, classes=(0 if world.truth(asked) == "b" else 1,)),
                    *(Answer(item_id=item, classes=(0,)) for item in free),
                ],
                annotator="ann",
                purpose=LabelPurpose.TRAINING,
                now=world.clock.now(),
            )
        assert running.result().round.state == scheduler_pb2.ROUND_STATE_FINISHED
    assert world.client.get_campaign("c").labels == 20
    assert [label.annotator for label in world.labels() if label.item_id == asked] == ["ann"]
    assert run_to_the_end(world, "c")[-1].labels == 20


def test_metadata_without_a_label_fails_the_round_until_it_is_mended(world: World) -> None:
    world.client.create_campaign(make_spec(oracle=DATASET))
    pool = world.index.pools["pool"]
    truth = dict(pool)
    for item in pool:
        pool[item] = Payload(metadata={"other": "a"})
    with pytest.raises(FailedPrecondition, match="metadata field 'labels' of item 'i"):
        world.client.run_round("c")
    assert world.labels() == []
    pool.update(truth)
    assert world.client.run_round("c").round.number == 1
    assert len(world.labels()) == 11
    assert run_to_the_end(world, "c")[-1].labels == 20


@pytest.mark.parametrize("oracle", [DATASET, scheduler_pb2.OracleSpec()], ids=["dataset", "external"])
def test_a_pool_that_is_labelled_whole_before_the_budget_is_spent_completes_the_campaign(
    world: World, oracle: scheduler_pb2.OracleSpec
) -> None:
    world.index.add_pool("pool", 13)
    world.client.create_campaign(make_spec(oracle=oracle))
    campaign = world.client.get_campaign("c")
    while campaign.state == scheduler_pb2.CAMPAIGN_STATE_ACTIVE:
        world.label()
        world.client.run_round("c")
        campaign = world.client.get_campaign("c")
    assert (campaign.state, campaign.labels) == (scheduler_pb2.CAMPAIGN_STATE_COMPLETED, 13)
    assert (campaign.last_round.labels, campaign.last_round.picks) == (13, 0)


def test_tasks_of_items_that_were_deleted_are_withdrawn_and_the_data_set_campaign_goes_on(world: World) -> None:
    world.client.create_campaign(make_spec(oracle=DATASET))
    world.client.run_round("c")
    release = world.index.troubles.hold("get_items")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(world.client.run_round, "c")
        assert world.index.troubles.reached["get_items"].wait(10)
        deleted = world.picks()[1][0]
        del world.index.pools["pool"][ItemId(deleted)]
        release()
        assert running.result(10).round.state == scheduler_pb2.ROUND_STATE_FINISHED
    campaign = world.client.get_campaign("c")
    assert (campaign.open_tasks, campaign.labels) == (0, 10)
    assert deleted not in {label.item_id for label in world.labels()}
    assert run_to_the_end(world, "c")[-1].labels == 20


def test_held_out_metadata_that_is_wrong_fails_the_round(world: World) -> None:
    world.index.pools["held-out"][ItemId("bad")] = Payload(metadata={"labels": "z"})
    world.client.create_campaign(make_spec(oracle=DATASET, evaluation_pool="held-out"))
    world.client.run_round("c")
    with pytest.raises(FailedPrecondition, match="'labels' of item 'bad': 'z'"):
        world.client.run_round("c")


def test_a_fault_of_the_learner_fails_the_round(world: World) -> None:
    world.client.create_campaign(make_spec(oracle=DATASET))
    world.client.run_round("c")
    world.learner.troubles.once("train", InternalError("fault 1"))
    with pytest.raises(FailedPrecondition, match="fault 1"):
        world.client.run_round("c")
    assert world.client.run_round("c").round.number == 2


def test_callers_of_one_round_get_one_answer(world: World) -> None:
    world.client.create_campaign(make_spec(oracle=DATASET))
    world.client.run_round("c")
    release = world.learner.troubles.hold("train")
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(world.client.run_round, "c") for _ in range(4)]
        assert world.learner.troubles.reached["train"].wait(10)
        release()
        numbers = {answer.result().round.number for answer in answers}
    assert len(world.learner.trained) <= max(numbers)
    assert 1 in numbers


def test_a_caller_who_leaves_does_not_stop_the_round(world: World) -> None:
    world.client.create_campaign(make_spec(oracle=DATASET))
    world.client.run_round("c")
    release = world.learner.troubles.hold("train")
    request = scheduler_pb2.RunRoundRequest(campaign="c")
    call = world.client._stub.RunRound.future(request)
    assert world.learner.troubles.reached["train"].wait(10)
    call.cancel()
    release()
    finished = (e for e in world.client.watch_campaign("c") if e.round_changed.round.number == 1)
    assert any(e.round_changed.round.state == scheduler_pb2.ROUND_STATE_FINISHED for e in finished)


def test_campaigns_run_side_by_side_and_each_alone(world: World) -> None:
    for name in ("c", "d", "e"):
        world.client.create_campaign(make_spec(name=name, oracle=DATASET, seed=7))
        world.client.run_round(name)
    together = threading.Barrier(3, timeout=10)
    original = world.learner.train

    def train(*arguments):  # type: ignore[no-untyped-def]
        together.wait()
        return original(*arguments)

    world.learner.train = train  # type: ignore[method-assign]
    with ThreadPoolExecutor(3) as pool:
        numbers = [answer.round.number for answer in pool.map(world.client.run_round, ("c", "d", "e"))]
    assert numbers == [1, 1, 1]
    assert world.picks("c")[0] == world.picks("d")[0]


def test_multilabel_labels_travel_whole(world: World) -> None:
    spec = make_spec(task=common_pb2.TASK_KIND_MULTILABEL, classes=["a", "b", "c"], seed_size=0)
    world.client.create_campaign(spec)
    world.client.submit_labels("c", {"i000": ["c", "a"], "i001": [], "i002": ["b"]}, annotator="x")
    world.client.run_round("c")
    examples = world.learner.trained[0][1]
    assert dict(zip(examples.ids, examples.labels, strict=True)) == {"i000": (0, 2), "i001": (), "i002": (1,)}
    assert [list(label.classes) for label in world.labels()] == [["a", "c"], [], ["b"]]


def test_a_round_that_was_cut_off_goes_on_after_a_restart(world: World) -> None:
    world.client.create_campaign(make_spec(oracle=DATASET))
    world.client.run_round("c")
    world.learner.troubles.always("select", Unavailable("away"))
    with pytest.raises(Unavailable):
        world.client.run_round("c")
    world.close()
    world.learner.troubles.always("select", None)
    world._start()
    events = world.client.watch_campaign("c")
    assert any(
        e.round_changed.round.number == 1 and e.round_changed.round.state == scheduler_pb2.ROUND_STATE_FINISHED
        for e in events
    )
    assert len(world.learner.trained) == 1


def test_stopping_ends_a_running_round_at_its_next_phase(world: World) -> None:
    world.client.create_campaign(make_spec(oracle=DATASET))
    world.client.run_round("c")
    release = world.learner.troubles.hold("train")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(world.client.run_round, "c")
        assert world.learner.troubles.reached["train"].wait(10)
        world.scheduler.drain()
        with pytest.raises(Unavailable, match="stopping"):
            running.result()  # its caller is told at once, not when the phase has ended
        release()
        world.scheduler.pool.close()
    assert world.client.get_campaign("c").last_round.state == scheduler_pb2.ROUND_STATE_EVALUATING
    world.restart()
    assert world.client.run_round("c").round.number in (1, 2)


def test_a_batch_that_outstanding_tasks_cut_is_told_and_the_round_trains_all_the_same(world: World) -> None:
    world.client.create_campaign(make_spec(budget=12, batch_size=10))
    world.client.run_round("c")
    world.label(count=2)
    assert world.client.run_round("c").round.picks == 6
    assert '"batch": 6, "labels": 2, "outstanding": 4, "budget": 12' in world.log.getvalue()
    world.label(count=1)
    last = world.client.run_round("c").round
    assert (last.labels, last.picks, last.error) == (3, 0, "")
    campaign = world.client.get_campaign("c")
    assert campaign.labels + campaign.open_tasks + campaign.leased_tasks == campaign.spec.budget
    with pytest.raises(FailedPrecondition, match=r"; 9 tasks are handed out .* 3 labels they take up the budget of 12"):
        world.client.run_round("c")
