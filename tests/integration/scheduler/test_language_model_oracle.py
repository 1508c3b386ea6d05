"""Campaigns that a language model labels, over the real client: what is asked, and what becomes of the answers."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from scheduler.domain.states import Audience, TaskState
from scheduler.rounds.oracle_labelling import is_audited
from scheduler.storage import llm_answers
from scheduler.storage.models import Annotation, LlmAnswer, Task
from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from sealpool.types import ItemId, Payload
from sealpool.v1 import common_pb2, scheduler_pb2
from tests.integration.scheduler.model_campaigns import (
    ANNOTATOR,
    llm_campaign,
    number_asked,
    report,
    rows,
    truth,
    waiting_for,
)
from tests.support.language_model import KEY, LanguageModelServer, Trouble, says
from tests.unit.scheduler.world import World


def test_a_campaign_runs_to_its_budget_without_anybody(
    make_with_model: Callable[..., World], model: LanguageModelServer
) -> None:
    world = make_with_model({}, max_concurrency=4, price_in=1, price_out=2)
    world.client.create_campaign(llm_campaign())
    states = [world.client.run_round("c").campaign_state for _ in range(5)]
    assert states[-1] == scheduler_pb2.CAMPAIGN_STATE_COMPLETED
    labels = world.labels()
    assert len(labels) == len(model.requests) == 20
    assert {label.annotator for label in labels} == {ANNOTATOR}
    assert all(list(label.classes) == [world.truth(label.item_id)] for label in labels)
    assert {confidence for (confidence,) in rows(world, Annotation.confidence)} == {0.9}
    found = report(world)
    assert (found.requests, found.tokens_in, found.tokens_out, found.labelled) == (20, 2000, 400, 20)
    assert found.cost == pytest.approx((2000 * 1 + 400 * 2) / 1e6)
    assert KEY not in world.log.getvalue()
    assert "text 1" not in world.log.getvalue()
    with world.scheduler.store.reading() as session:
        assert llm_answers.report(session, 999, annotator=ANNOTATOR) is None


def test_the_examples_shown_are_the_nearest_that_others_labelled_as_of_the_snapshot(
    make_with_model: Callable[..., World], model: LanguageModelServer
) -> None:
    world = make_with_model()
    world.client.create_campaign(llm_campaign(examples=2, spec={"seed_size": 0}))
    given = {f"i{number:03d}": ["ab"[number % 2]] for number in range(6)}
    world.client.submit_labels("c", given, annotator="ann")
    world.client.run_round("c")
    world.client.run_round("c")  # by then there are labels in the model's own name too
    assert len(model.requests) == 10
    vectors = dict(zip(given, world.index._matrix("pool", [ItemId(item) for item in given]), strict=True))
    for body in model.requests:
        [asked] = [message["content"] for message in body["messages"] if message["role"] == "user"]
        *shown, item = (int(number) for number in re.findall(r"^text (\d+)$", asked, re.MULTILINE))
        query = world.index._matrix("pool", [ItemId(f"i{item:03d}")])[0]
        nearest = sorted(given, key=lambda each: -float(query @ vectors[each]))[:2]
        assert [f"i{number:03d}" for number in reversed(shown)] == nearest
        assert all(f'classes: ["{"ab"[number % 2]}"]' in asked for number in shown)


def test_what_the_model_cannot_tell_goes_to_people_and_holds_nothing_up(
    make_with_model: Callable[..., World], model: LanguageModelServer
) -> None:
    sure = truth

    def answer(body: Mapping[str, Any]) -> str:
        if number_asked(body) % 3 == 0:
            return says(cannot_tell=True)
        return says("a", confidence=0.2) if number_asked(body) % 3 == 1 else sure(body)

    model.answer = answer
    world = make_with_model()
    world.index.pools["pool"][ItemId("i002")] = Payload(text=" ", metadata={"labels": "a"})
    world.client.create_campaign(llm_campaign(min_confidence=0.5, spec={"seed_size": 60, "budget": 60}))
    done = world.client.run_round("c")
    assert done.round.state == scheduler_pb2.ROUND_STATE_FINISHED
    labelled = {f"i{number:03d}" for number in range(2, 60, 3)} - {"i002"}
    assert {label.item_id for label in world.labels()} == labelled
    people = {f"i{number:03d}" for number in range(60)} - labelled
    assert waiting_for(world, Audience.PEOPLE) == people
    assert not waiting_for(world, Audience.ORACLE)
    assert len(model.requests) == 59
    assert report(world).abstained == len(people)
    said = dict(rows(world, Annotation.item_id, Annotation.comment))
    assert (said["i000"], said["i001"], said["i002"]) == (
        "it cannot tell",
        "too little confidence",
        "it has no text",
    )
    assert world.client.run_round("c").round.labels == len(labelled)
    assert len(model.requests) == 59
    assert set(world.label(count=60)) == people
    assert len(world.labels()) == 60


@pytest.mark.parametrize("wrong", ["no JSON", says("z")])
def test_a_broken_answer_is_repaired_once_and_else_left_to_people(
    make_with_model: Callable[..., World], model: LanguageModelServer, wrong: str
) -> None:
    world = make_with_model()
    world.client.create_campaign(llm_campaign(audit_share=1, spec={"seed_size": 2}))
    model.next(Trouble(content=wrong), Trouble(content=says("a")), *[Trouble(content=wrong)] * 2)
    world.client.run_round("c")
    assert len(model.requests) == 4
    assert [len(body["messages"]) for body in model.requests] == [2, 4, 2, 4]
    assert wrong in model.requests[1]["messages"][2]["content"]
    assert len(world.labels()) == 1
    assert len(waiting_for(world, Audience.PEOPLE)) == 2
    # What people get anyway is not audited.
    purposes = sorted(purpose for purpose, state in rows(world, Task.purpose, Task.state) if state == TaskState.OPEN)
    assert purposes == ["review", "training"]
    problems = [problem for (problem,) in rows(world, LlmAnswer.problem)]
    assert sorted(map(bool, problems)) == [False, True, True, True]
    assert report(world).requests == 4


def test_samples_that_disagree_are_left_to_people(
    make_with_model: Callable[..., World], model: LanguageModelServer
) -> None:
    world = make_with_model()
    world.client.create_campaign(llm_campaign(samples=3, spec={"seed_size": 2}))
    answers = [says("a"), says("a", confidence=0.5), says("b"), says("a"), says("b"), "nonsense", "nonsense"]
    model.next(*(Trouble(content=content) for content in answers))
    world.client.run_round("c")
    assert len(model.requests) == 7
    assert {body["temperature"] for body in model.requests} == {0.7}
    [(confidence, comment)] = [
        row for row in rows(world, Annotation.confidence, Annotation.comment) if row[0] is not None
    ]
    assert confidence == pytest.approx(2 / 3 * 0.7)
    assert comment == "2 of 3 answers agree"
    assert len(waiting_for(world, Audience.PEOPLE)) == 1


def test_several_classes_an_item(make_with_model: Callable[..., World], model: LanguageModelServer) -> None:
    model.answer = lambda body: says("b", "a") if number_asked(body) % 2 else says()
    world = make_with_model()
    world.client.create_campaign(llm_campaign(spec={"task": common_pb2.TASK_KIND_MULTILABEL}))
    world.client.run_round("c")
    for label in world.labels():
        assert list(label.classes) == (["a", "b"] if int(label.item_id[1:]) % 2 else [])


def test_a_share_of_the_labels_is_audited_and_tells_the_error_rate(
    make_with_model: Callable[..., World], model: LanguageModelServer
) -> None:
    model.answer = lambda _: says("a")  # wrong for every item of odd number
    world = make_with_model()
    spec = llm_campaign(audit_share=0.4, spec={"seed_size": 60, "budget": 60})
    world.client.create_campaign(spec)
    world.client.run_round("c")
    audited = {f"i{number:03d}" for number in range(60) if is_audited(spec, ItemId(f"i{number:03d}"))}
    assert 10 <= len(audited) <= 40
    assert waiting_for(world, Audience.PEOPLE) == audited
    before = report(world)
    assert before.audited == 0
    assert before.error_rate != before.error_rate
    assert set(world.label(count=100)) == audited
    after = report(world)
    wrong = {item for item in audited if int(item[1:]) % 2}
    assert (after.audited, after.errors) == (len(audited), len(wrong))
    assert after.error_rate == pytest.approx(len(wrong) / len(audited))
    assert 0 < after.error_low < after.error_rate < after.error_high < 1
    corrected = {label.item_id: list(label.classes) for label in world.labels(only_effective=True)}
    assert all(corrected[item] == [world.truth(item)] for item in audited)
    # A correction that nobody asked for does not count: people pick what they correct.
    [volunteered] = [item for item in corrected if item not in audited and int(item[1:]) % 2][:1]
    world.client.submit_labels("c", {volunteered: ["b"]}, annotator="ann")
    assert report(world).errors == len(wrong)


def test_campaigns_that_cannot_be_asked_are_refused_when_created(make_with_model: Callable[..., World]) -> None:
    world = make_with_model()
    for spec, error, match in (
        (llm_campaign(endpoint="other"), FailedPrecondition, r"spec.oracle.llm.endpoint: .*'other'; it has default"),
        (llm_campaign(template="{{ nothing }}"), InvalidArgument, "spec.oracle.llm.template"),
        (llm_campaign(max_cost=1), FailedPrecondition, "has no price_in"),
        (llm_campaign(model=""), InvalidArgument, "spec.oracle.llm.model"),
    ):
        with pytest.raises(error, match=match):
            world.client.create_campaign(spec)
    with pytest.raises(NotFound):
        world.client.get_campaign("c")


def test_without_endpoints_the_setting_is_named(world: World) -> None:
    with pytest.raises(FailedPrecondition, match="setting llm_endpoints names the file"):
        world.client.create_campaign(llm_campaign())


def test_an_item_that_the_pool_lost_is_not_asked_about(
    make_with_model: Callable[..., World], model: LanguageModelServer
) -> None:
    world = make_with_model()
    world.client.create_campaign(llm_campaign())
    model.always(Trouble(status=503))
    with pytest.raises(Unavailable):
        world.client.run_round("c")
    lost = world.picks()[0][0]
    del world.index.pools["pool"][ItemId(lost)]
    model.always(None)
    world.client.run_round("c")
    assert lost not in {label.item_id for label in world.labels()}
    assert len(world.labels()) == 5
    assert not waiting_for(world, Audience.ORACLE)


def test_the_metrics_have_requests_tokens_and_the_error_rate(
    make_with_model: Callable[..., World], model: LanguageModelServer
) -> None:
    world = make_with_model({}, price_in=1, max_attempts=2)
    world.client.create_campaign(llm_campaign(audit_share=1, max_tokens=1000, spec={"seed_size": 2}))
    world.client.run_round("c")
    world.label()
    value = world.registry.get_sample_value
    prefix = "sealpool_scheduler_llm"
    assert value(f"{prefix}_requests_total", {"endpoint": "default", "outcome": "answered"}) == 2
    assert value(f"{prefix}_tokens_total", {"endpoint": "default", "direction": "in"}) == 200
    assert value(f"{prefix}_tokens_total", {"endpoint": "default", "direction": "out"}) == 40
    assert value(f"{prefix}_cost_total", {"endpoint": "default"}) == pytest.approx(0.0002)
    assert value(f"{prefix}_in_flight_requests", {"endpoint": "default"}) == 0
    assert value(f"{prefix}_audited_items", {"campaign": "c"}) == 2
    assert value(f"{prefix}_error_rate_ratio", {"campaign": "c"}) == 0
    assert value(f"{prefix}_spent", {"campaign": "c", "unit": "tokens"}) == 240
    assert value(f"{prefix}_spent", {"campaign": "c", "unit": "money"}) == pytest.approx(0.0002)
    assert value(f"{prefix}_budget", {"campaign": "c", "unit": "tokens"}) == 1000
    assert value(f"{prefix}_budget", {"campaign": "c", "unit": "money"}) is None
