"""Campaigns that a language model labels, and what can be seen of them."""

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import select

from scheduler.domain.states import Audience, TaskState
from scheduler.storage import campaigns, llm_answers
from scheduler.storage.models import Task
from sealpool.errors import SealpoolError
from sealpool.v1 import scheduler_pb2
from tests.support.language_model import says
from tests.unit.scheduler.world import World, make_spec

MODEL = "m"
ANNOTATOR = f"llm:{MODEL}"


def number_asked(body: Mapping[str, Any]) -> int:
    """Return the number of the item in question: the last text that is shown."""
    asked = next(message for message in body["messages"] if message["role"] == "user")
    return int(re.findall(r"^text (\d+)$", asked["content"], re.MULTILINE)[-1])


def truth(body: Mapping[str, Any]) -> str:
    return says("ab"[number_asked(body) % 2])


def llm_campaign(**llm: Any) -> scheduler_pb2.CampaignSpec:
    changes = llm.pop("spec", {})
    oracle = scheduler_pb2.OracleSpec(name="llm", llm=scheduler_pb2.LlmSpec(**{"model": MODEL, **llm}))
    return make_spec(oracle=oracle, **changes)


def rows(world: World, *columns: Any) -> list[tuple[Any, ...]]:
    with world.scheduler.store.reading() as session:
        return [tuple(row) for row in session.execute(select(*columns))]


def report(world: World) -> scheduler_pb2.LlmReport:
    with world.scheduler.store.reading() as session:
        found = llm_answers.report(session, campaigns.get(session, "c").id, annotator=ANNOTATOR)
    assert found is not None
    return found


def waiting_for(world: World, audience: Audience) -> set[str]:
    found = rows(world, Task.item_id, Task.state, Task.audience)
    return {item for item, state, whose in found if (state, whose) == (TaskState.OPEN, audience)}


def in_background(call: Callable[[], object]) -> tuple[threading.Thread, list[SealpoolError]]:
    """Make a call on a thread of its own; return the thread, and where its error will be."""
    caught: list[SealpoolError] = []

    def run() -> None:
        try:
            call()
        except SealpoolError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, caught


def raise_limit(world: World, **raised: Any) -> None:
    with world.scheduler.store.writing() as session:
        campaign = campaigns.lock(session, "c")
        spec = campaigns.spec_of(campaign)
        for name, value in raised.items():
            setattr(spec.oracle.llm, name, value)
        campaign.spec = spec.SerializeToString(deterministic=True)
