"""Campaigns that a language model labels, when it is away, refuses, is interrupted, or has spent its limit."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from scheduler.domain.states import Audience
from scheduler.rounds.oracle_labelling import OracleLabelling
from scheduler.storage.models import LlmAnswer
from sealpool.errors import FailedPrecondition, Unavailable
from sealpool.v1 import scheduler_pb2
from tests.integration.scheduler.model_campaigns import (
    in_background,
    llm_campaign,
    raise_limit,
    report,
    rows,
    waiting_for,
)
from tests.support.language_model import KEY, LanguageModelServer, Trouble, says
from tests.unit.scheduler.world import World


@pytest.mark.parametrize("samples", [1, 3])
def test_nothing_is_paid_for_twice_after_a_kill_between_answer_and_label(
    make_with_model: Callable[..., World], model: LanguageModelServer, monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    world = make_with_model()
    world.client.create_campaign(llm_campaign(samples=samples))
    commit = OracleLabelling._commit
    commits = 0

    def fail_at_third(self: OracleLabelling, *args: Any) -> None:
        nonlocal commits
        commits += 1
        if commits == 3:
            raise Unavailable("killed")
        commit(self, *args)

    monkeypatch.setattr(OracleLabelling, "_commit", fail_at_third)
    with pytest.raises(Unavailable, match="killed"):
        world.client.run_round("c")
    assert len(world.labels()) == 2
    monkeypatch.undo()
    world.restart()
    world.client.run_round("c")
    assert len(world.labels()) == 6
    asked = [json.dumps(body["messages"]) for body in model.requests]
    assert len(asked) == 6 * samples
    assert len(set(asked)) == 6
    assert report(world).requests == 6 * samples


def test_a_round_that_a_refusal_ends_keeps_what_was_answered(
    make_with_model: Callable[..., World], model: LanguageModelServer
) -> None:
    world = make_with_model()
    world.client.create_campaign(llm_campaign())
    model.next(*[Trouble(content=says("a"))] * 2, Trouble(status=404, message="no such model"))
    with pytest.raises(FailedPrecondition, match=r"endpoint 'default', model 'm' refuses .HTTP 404.: .*no such model"):
        world.client.run_round("c")
    assert len(world.labels()) == 2
    assert KEY not in world.log.getvalue()
    world.client.run_round("c")
    assert len(waiting_for(world, Audience.ORACLE)) == 0
    assert len({json.dumps(body) for body in model.requests}) == len(model.requests) - 1


def test_what_is_under_way_when_the_endpoint_refuses_is_waited_for_and_kept(
    make_with_model: Callable[..., World], model: LanguageModelServer
) -> None:
    world = make_with_model({}, max_concurrency=3)
    world.client.create_campaign(llm_campaign())
    model.gate.clear()
    model.next(Trouble(status=403, at_once=True))
    caller, caught = in_background(lambda: world.client.run_round("c"))
    for _ in range(3):
        assert model.arrived.acquire(timeout=20)
    assert model.answered.acquire(timeout=20)
    model.gate.set()
    caller.join(20)
    assert isinstance(caught[0], FailedPrecondition)
    assert len(world.labels()) == len(model.requests) - 1 >= 2


def test_campaigns_share_what_an_endpoint_takes_at_once(
    make_with_model: Callable[..., World], model: LanguageModelServer
) -> None:
    world = make_with_model({}, max_concurrency=2)
    model.gate.clear()
    callers = []
    for name in ("c", "d"):
        world.client.create_campaign(llm_campaign(spec={"name": name}))
        callers.append(in_background(lambda name=name: world.client.run_round(name)))  # type: ignore[misc]
    for _ in range(2):
        assert model.arrived.acquire(timeout=20)
    assert not model.arrived.acquire(timeout=0.1)
    model.gate.set()
    for thread, caught in callers:
        thread.join(20)
        assert not caught
    assert model.most_at_once == 2
    assert len(world.labels("c")) == len(world.labels("d")) == 6


def test_labels_that_arrive_while_a_round_waits_change_no_question(
    make_with_model: Callable[..., World], model: LanguageModelServer
) -> None:
    world = make_with_model()
    world.client.create_campaign(llm_campaign(spec={"seed_size": 0}))
    world.client.submit_labels("c", {"i000": ["a"], "i001": ["b"]}, annotator="ann")
    model.next(Trouble(status=503))
    with pytest.raises(Unavailable, match="HTTP 503"):
        world.client.run_round("c")
    world.client.submit_labels("c", {"i000": ["b"]}, annotator="ann")
    picked = world.picks()[1]
    world.client.submit_labels("c", {picked[-1]: ["a"]}, annotator="ann")
    world.client.run_round("c")
    assert len(model.requests) == 5  # the one that failed, and four items that wait still
    assert model.requests[0] == model.requests[1]


def test_an_endpoint_that_is_away_makes_the_round_wait(
    make_with_model: Callable[..., World], model: LanguageModelServer
) -> None:
    world = make_with_model()
    world.client.create_campaign(llm_campaign())
    model.always(Trouble(status=503))
    with pytest.raises(Unavailable, match="HTTP 503"):
        world.client.run_round("c")
    assert world.client.get_campaign("c").last_round.state == scheduler_pb2.ROUND_STATE_LABELLING
    model.always(None)
    assert world.client.run_round("c").round.number == 0
    assert len(world.labels()) == 6


@pytest.mark.parametrize(
    ("limit", "raised", "concurrency"),
    [({"max_tokens": 700}, {"max_tokens": 5000}, 1), ({"max_cost": 0.0007}, {"max_cost": 1.0}, 4)],
)
def test_a_spent_limit_pauses_the_campaign_and_raising_it_goes_on(
    make_with_model: Callable[..., World],
    model: LanguageModelServer,
    limit: dict[str, Any],
    raised: dict[str, Any],
    concurrency: int,
) -> None:
    world = make_with_model({}, price_in=1, price_out=1, max_concurrency=concurrency)
    model.usage = (200, 20)
    world.client.create_campaign(llm_campaign(**limit))
    assert world.client.run_round("c").campaign_state == scheduler_pb2.CAMPAIGN_STATE_PAUSED
    paused = world.client.get_campaign("c")
    assert next(iter(limit)) in paused.state_reason
    answered = len(model.requests)
    assert 1 <= answered <= 3
    assert len(world.labels()) == answered
    assert len(waiting_for(world, Audience.ORACLE)) == 6 - answered
    with pytest.raises(FailedPrecondition, match="paused"):
        world.client.run_round("c")

    world.client.resume_campaign("c")
    assert world.client.run_round("c").campaign_state == scheduler_pb2.CAMPAIGN_STATE_PAUSED
    assert world.client.get_campaign("c").state_reason == paused.state_reason
    assert len(model.requests) == answered

    raise_limit(world, **raised)
    world.client.resume_campaign("c")
    done = world.client.run_round("c")
    assert done.campaign_state == scheduler_pb2.CAMPAIGN_STATE_ACTIVE
    assert not waiting_for(world, Audience.ORACLE)
    assert len(world.labels()) >= 6
    asked = [json.dumps(body["messages"]) for body in model.requests]
    assert len(set(asked)) == len(asked)


def test_what_a_limit_left_is_due_after_resuming_whatever_the_rule_waits_for(
    make_with_model: Callable[..., World], model: LanguageModelServer
) -> None:
    world = make_with_model()
    model.usage = (200, 20)
    world.client.create_campaign(llm_campaign(max_tokens=700, spec={"rule": scheduler_pb2.RoundRule(after_labels=15)}))
    world.client.run_round("c")
    assert waiting_for(world, Audience.ORACLE)
    raise_limit(world, max_tokens=100_000)
    world.client.resume_campaign("c")
    world.scheduler.pool.run("c").result(20)  # begins the round
    world.scheduler.pool.run("c").result(20)  # ends it
    assert not waiting_for(world, Audience.ORACLE)


def test_a_question_under_way_when_the_scheduler_stops_is_answered_and_kept(
    make_with_model: Callable[..., World], model: LanguageModelServer
) -> None:
    world = make_with_model({}, max_concurrency=2)
    world.client.create_campaign(llm_campaign(spec={"rule": scheduler_pb2.RoundRule(after_labels=1)}))
    model.gate.clear()
    caller, caught = in_background(lambda: world.client.run_round("c"))
    for _ in range(2):
        assert model.arrived.acquire(timeout=20)
    world.scheduler.drain()
    model.gate.set()
    caller.join(20)
    assert isinstance(caught[0], Unavailable)
    world.restart()
    assert len(rows(world, LlmAnswer.item_id)) == len(model.requests) == 2
    world.client.run_round("c")
    asked = [json.dumps(body["messages"]) for body in model.requests]
    assert len(set(asked)) == len(asked) == 6
