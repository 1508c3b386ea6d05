"""A scheduler that stops while a language model thinks: the end is bounded, and nobody else pays meanwhile."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from scheduler.storage import llm_answers
from scheduler.storage.models import LlmAnswer
from sealpool.errors import Unavailable
from tests.integration.scheduler.model_campaigns import in_background, llm_campaign, rows
from tests.support.language_model import LanguageModelServer, says
from tests.unit.scheduler.world import World


def test_an_answer_that_takes_longer_than_the_grace_is_cut_off_and_asked_for_again(
    make_with_model: Callable[..., World], model: LanguageModelServer
) -> None:
    world = make_with_model({"grace_s": 0.2}, timeout_s=600)
    world.client.create_campaign(llm_campaign())
    model.gate.clear()
    caller, caught = in_background(lambda: world.client.run_round("c"))
    assert model.arrived.acquire(timeout=20)
    world.server.stop()  # without a cut it would wait for ten minutes
    caller.join(20)
    assert isinstance(caught[0], Unavailable)
    assert "cut off" in world.log.getvalue()
    model.gate.set()
    world.restart()
    world.client.run_round("c")
    assert len(world.labels()) == 6
    assert len(model.requests) == 7


def test_the_lead_is_kept_until_the_last_answer_is_written_down(
    make_with_model: Callable[..., World], model: LanguageModelServer
) -> None:
    world = make_with_model({"grace_s": 20}, max_concurrency=2)
    world.client.create_campaign(llm_campaign())
    model.gate.clear()
    caller, _ = in_background(lambda: world.client.run_round("c"))
    for _ in range(2):
        assert model.arrived.acquire(timeout=20)
    world.scheduler.drain()
    assert world.scheduler.leads()  # another that leads would ask the same two again
    released = threading.Event()
    world.scheduler.language_models.when_idle(released.set)
    model.gate.set()
    assert released.wait(20)
    assert not world.scheduler.leads()
    assert len(rows(world, LlmAnswer.item_id)) == len(model.requests) == 2
    caller.join(20)


def test_items_with_the_same_text_are_one_question_also_when_asked_at_once(
    make_with_model: Callable[..., World], model: LanguageModelServer
) -> None:
    world = make_with_model({}, max_concurrency=3)
    items = world.index.pools["pool"]
    for item, payload in items.items():
        items[item] = replace(payload, text="text 0")
    model.answer = lambda _: says("a")
    world.client.create_campaign(llm_campaign(examples=0))
    world.client.run_round("c")
    assert len(world.labels()) == 6
    assert len(model.requests) == 1


def test_an_answer_is_written_down_although_the_database_was_away(
    make_with_model: Callable[..., World], model: LanguageModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_with_model()
    world.client.create_campaign(llm_campaign())
    add, away = llm_answers.add, [Unavailable("failing over")]

    def add_later(*args: object, **options: object) -> None:
        if away:
            raise away.pop()
        add(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(llm_answers, "add", add_later)
    world.client.run_round("c")
    asked = [json.dumps(body["messages"]) for body in model.requests]
    assert len(asked) == len(set(asked)) == 6
