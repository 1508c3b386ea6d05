"""Paraphrases by a language model that refuses, breaks off, babbles, or has spent its limit: nothing is paid twice."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from scheduler.storage.models import LlmAnswer
from sealpool.client import ClientOptions, StreamClient
from sealpool.errors import FailedPrecondition, Unavailable
from sealpool.types import Payload
from sealpool.v1 import learner_pb2, stream_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.integration.scheduler.model_campaigns import MODEL, raise_limit, rows
from tests.support.language_model import LanguageModelServer, Trouble
from tests.unit.scheduler.world import World, make_spec

PARAPHRASE = stream_pb2.SYNTHESIS_METHOD_PARAPHRASE
ENCODER = learner_pb2.EmbedHeader(encoder="e", normalize=True)


def told_anew(body: Mapping[str, Any]) -> str:
    """Return the text that is asked about with its words turned round."""
    text = body["messages"][-1]["content"].removeprefix("<text>\n").removesuffix("\n</text>")
    return " ".join(reversed(text.split()))


@pytest.fixture
def model() -> Iterator[LanguageModelServer]:
    with LanguageModelServer(told_anew) as running:
        yield running


@pytest.fixture
def world(make_with_model: Callable[..., World]) -> World:
    """A campaign with labels, which people give, and a limit for its language model."""
    world = make_with_model()
    pool = world.index.pools["pool"]
    for item, payload in pool.items():
        pool[item] = Payload(text=f"about {item} there is more to say", metadata=payload.metadata)
    oracle = pb.OracleSpec(llm=pb.LlmSpec(model=MODEL))
    world.client.create_campaign(make_spec(budget=200, oracle=oracle))
    world.client.run_round("c")
    world.label()
    return world


@pytest.fixture
def client(world: World) -> Iterator[StreamClient]:
    options = ClientOptions(retry_for_s=0, timeout_s=20, long_timeout_s=60)
    with StreamClient(world.server.address, options=options) as connected:
        yield connected


def paraphrase(client: StreamClient, count: int) -> list[str]:
    return [item.text for item in client.synthesize("c", PARAPHRASE, count, encoder=ENCODER, model=MODEL)]


def asked(model: LanguageModelServer) -> list[str]:
    return [told_anew(body) for body in model.requests]


def labelled(world: World) -> int:
    return len(list(world.labels()))


def test_each_text_is_told_anew_by_one_request(world: World, client: StreamClient, model: LanguageModelServer) -> None:
    count = labelled(world)
    assert sorted(paraphrase(client, count)) == sorted(asked(model))
    assert len(set(asked(model))) == count
    assert len(rows(world, LlmAnswer.answer)) == count


def test_no_more_is_asked_for_than_is_missing(world: World, client: StreamClient, model: LanguageModelServer) -> None:
    model.next(Trouble(content="  "))  # says nothing: one more has to be asked for
    assert len(paraphrase(client, 3)) == 3
    assert len(model.requests) == 4


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble(status=429),
        Trouble(status=500),
        Trouble(body=b'{"choices": ['),
        Trouble(cut=True),
        Trouble(hang_up=True),
    ],
    ids=["too many", "broken server", "broken JSON", "cut", "hung up"],
)
def test_what_came_before_a_failure_is_kept_and_not_paid_for_again(
    world: World, client: StreamClient, model: LanguageModelServer, trouble: Trouble
) -> None:
    fine = Trouble(content="first"), Trouble(content="second")
    model.next(*fine, trouble)
    with pytest.raises(Unavailable, match="does not answer"):
        paraphrase(client, 5)
    assert world.client.get_campaign("c").open_tasks == 0
    made = paraphrase(client, 5)
    assert len(made) == 5
    assert {"first", "second"} <= set(made)
    # One request failed. Another may have been under way then, and been answered after: that was kept as well.
    assert len(model.requests) == 5 + 1
    assert len(rows(world, LlmAnswer.answer)) == 5


def test_a_passing_refusal_is_tried_again(make_with_model: Callable[..., World], model: LanguageModelServer) -> None:
    world = make_with_model(max_attempts=3)
    world.client.create_campaign(make_spec(oracle=pb.OracleSpec(llm=pb.LlmSpec(model=MODEL))))
    world.client.run_round("c")
    world.label()
    model.next(Trouble(status=429, headers={"Retry-After": "0"}), Trouble(body=b"no JSON"))
    with StreamClient(world.server.address, options=ClientOptions(retry_for_s=0, long_timeout_s=60)) as client:
        assert len(paraphrase(client, 2)) == 2
    assert len(model.requests) == 4


def test_a_text_that_the_endpoint_refuses_is_not_asked_about_again(
    world: World, client: StreamClient, model: LanguageModelServer
) -> None:
    model.next(Trouble(status=400, code="content_filter"))
    assert len(paraphrase(client, 2)) == 2
    assert len(model.requests) == 3
    paraphrase(client, labelled(world))
    # Everything that was ever asked is kept, the refusal too, each variant of a text once.
    assert len(set(rows(world, LlmAnswer.prompt_hash, LlmAnswer.sample))) == len(model.requests)
    assert sum(bool(problem) for (problem,) in rows(world, LlmAnswer.problem)) == 1


def test_a_limit_ends_it_before_the_next_request_and_raising_it_goes_on(
    world: World, client: StreamClient, model: LanguageModelServer
) -> None:
    raise_limit(world, max_tokens=450)  # an answer takes 120
    with pytest.raises(FailedPrecondition, match="max_tokens = 450 has no room"):
        paraphrase(client, 5)
    kept = len(rows(world, LlmAnswer.answer))
    assert 0 < kept == len(model.requests) < 5
    raise_limit(world, max_tokens=0)
    assert len(paraphrase(client, 5)) == 5
    assert len(model.requests) == 5


def test_the_same_request_is_answered_as_before_and_another_makes_others(
    world: World, client: StreamClient, model: LanguageModelServer
) -> None:
    def call(request_id: str) -> list[str]:
        found = client.synthesize("c", PARAPHRASE, 2, encoder=ENCODER, model=MODEL, request_id=request_id)
        return [item.item_id for item in found]

    first = call("one")
    assert call("one") == first
    assert len(model.requests) == 2
    assert not set(call("two")) & set(first)
    assert len(model.requests) == 4


def test_a_character_that_no_database_takes_is_left_out(
    world: World, client: StreamClient, model: LanguageModelServer
) -> None:
    model.next(Trouble(content="half a\0word"))
    assert paraphrase(client, 1) == ["half aword"]
