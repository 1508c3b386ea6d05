"""The real client against a server that misbehaves: what is tried again, what fails, and how fast it asks."""

import io
import logging
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Any

import pytest

from scheduler.oracles.llm.client import Backoff, EndpointClient, Reply
from scheduler.oracles.llm.endpoints import Endpoint
from scheduler.oracles.llm.metrics import LlmMetrics
from scheduler.oracles.llm.models import LanguageModels
from scheduler.oracles.llm.questions import Question
from scheduler.oracles.llm.underway import Underway
from scheduler.settings import SchedulerSettings
from sealpool.errors import FailedPrecondition, Unavailable
from sealpool.runtime.logs import make_logger
from tests.support.language_model import KEY, LanguageModelServer, Trouble, says

QUESTION = Question(
    endpoint="default", model="m", messages=[{"role": "user", "content": "?"}], settings={"temperature": 0.0}
)
QUICK = Backoff(first_s=0.001, longest_s=0.002)
Made = tuple[EndpointClient, LlmMetrics]


@pytest.fixture
def server() -> Iterator[LanguageModelServer]:
    with LanguageModelServer(lambda _: says("a")) as running:
        yield running


@pytest.fixture
def make(server: LanguageModelServer) -> Iterator[Callable[..., Made]]:
    made: list[LanguageModels] = []

    def of(*, backoff: Backoff = QUICK, **endpoint: Any) -> Made:
        told = {"base_url": server.url, "api_key": KEY, "max_attempts": 3, "timeout_s": 20, **endpoint}
        log = make_logger(SchedulerSettings(), "scheduler", stream=io.StringIO())
        metrics = LlmMetrics()
        models = LanguageModels(
            {"default": Endpoint(**told)}, metrics=metrics, log=log, backoff=backoff, randomness=random.Random(1)
        )
        made.append(models)
        return models.client("default", field="f"), metrics

    yield of
    server.gate.set()
    for models in made:
        models.close()


def ask(client: EndpointClient) -> Reply:
    return client.submit(lambda: client.ask(QUESTION, tokens=10)).result(20)


def count(metrics: LlmMetrics, outcome: str) -> float:
    return metrics.requests.labels("default", outcome)._value.get()


def test_an_answer_comes_with_its_tokens(server: LanguageModelServer, make: Callable[..., Made]) -> None:
    client, metrics = make()
    assert ask(client) == Reply(text=says("a"), tokens_in=100, tokens_out=20)
    [body] = server.requests
    assert body["model"] == "m"
    assert body["temperature"] == 0
    assert body["messages"] == [{"role": "user", "content": "?"}]
    assert count(metrics, "answered") == 1
    assert metrics.in_flight.labels("default")._value.get() == 0


def test_an_endpoint_that_does_not_count_is_estimated(server: LanguageModelServer, make: Callable[..., Made]) -> None:
    server.usage = None
    reply = ask(make()[0])
    assert reply.tokens_in > 0
    assert reply.tokens_out > 0


@pytest.mark.parametrize(
    ("trouble", "outcome"),
    [
        (Trouble(status=429), "limited"),
        (Trouble(status=429, headers={"Retry-After": "0"}), "limited"),
        (Trouble(status=500), "server_error"),
        (Trouble(status=502), "server_error"),
        (Trouble(status=503), "server_error"),
        (Trouble(status=529), "server_error"),
        (Trouble(hang_up=True), "connection"),
        (Trouble(cut=True), "connection"),
        (Trouble(body=b"<html>busy</html>"), "garbage"),
        (Trouble(body=b'{"choices": []}'), "garbage"),
        (Trouble(body=b"[]"), "garbage"),
        (Trouble(body=b"null"), "garbage"),
    ],
)
def test_what_time_may_mend_is_tried_again(
    server: LanguageModelServer, make: Callable[..., Made], trouble: Trouble, outcome: str
) -> None:
    client, metrics = make()
    server.next(trouble, trouble)
    assert ask(client).text == says("a")
    assert len(server.requests) == 3
    assert count(metrics, outcome) == 2
    assert metrics.retries.labels("default")._value.get() == 2


def test_a_slow_answer_is_given_up_and_asked_for_again(server: LanguageModelServer, make: Callable[..., Made]) -> None:
    client, metrics = make(timeout_s=0.2)
    server.next(Trouble(silent=True))
    assert ask(client).text == says("a")
    assert count(metrics, "timeout") == 1


def test_an_endpoint_that_stays_away_is_unavailable_after_so_many_tries(
    server: LanguageModelServer, make: Callable[..., Made]
) -> None:
    client, metrics = make()
    server.always(Trouble(status=503))
    with pytest.raises(Unavailable, match="endpoint 'default', model 'm' does not answer: HTTP 503"):
        ask(client)
    assert len(server.requests) == 3
    assert metrics.retries.labels("default")._value.get() == 2


def test_in_a_long_retry_after_nothing_is_sent_and_the_round_waits(
    server: LanguageModelServer, make: Callable[..., Made]
) -> None:
    client, _ = make()
    server.next(Trouble(status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(Unavailable) as caught:
        ask(client)
    assert caught.value.retry_after_s == pytest.approx(3600, abs=60)
    with pytest.raises(Unavailable, match="asks for a pause"):
        ask(client)
    assert len(server.requests) == 1


def test_a_wait_for_the_endpoint_ends_when_the_scheduler_stops(server: LanguageModelServer) -> None:
    stopping = threading.Event()
    endpoint = Endpoint(base_url=server.url, api_key=KEY)  # type: ignore[arg-type]
    log = make_logger(SchedulerSettings(), "scheduler", stream=io.StringIO())
    client = EndpointClient(
        "default",
        endpoint,
        stopping=stopping,
        underway=Underway(),
        metrics=LlmMetrics(),
        log=log,
        backoff=Backoff(first_s=100, longest_s=100),
        randomness=random.Random(1),
    )
    server.next(Trouble(status=429, headers={"Retry-After": "200"}))
    waiting = client.submit(lambda: client.ask(QUESTION, tokens=10))
    assert server.arrived.acquire(timeout=20)
    stopping.set()
    with pytest.raises(Unavailable, match="stopping"):
        waiting.result(20)
    client.close()
    with pytest.raises(Unavailable, match="stopping"):
        client.submit(lambda: None)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_fails_at_once_and_names_endpoint_and_model(
    server: LanguageModelServer, make: Callable[..., Made], status: int
) -> None:
    client, metrics = make()
    server.next(Trouble(status=status, message=f"the key {KEY} may not"))
    with pytest.raises(FailedPrecondition, match=f"endpoint 'default', model 'm' refuses.*HTTP {status}") as caught:
        ask(client)
    assert KEY not in caught.value.message
    assert len(server.requests) == 1
    assert count(metrics, "refused") == 1


def test_money_that_ran_out_at_the_endpoint_is_not_waited_for(
    server: LanguageModelServer, make: Callable[..., Made]
) -> None:
    server.next(Trouble(status=429, code="insufficient_quota"))
    with pytest.raises(FailedPrecondition, match="HTTP 429"):
        ask(make()[0])


def test_a_text_that_the_endpoint_does_not_take_is_a_reply(
    server: LanguageModelServer, make: Callable[..., Made]
) -> None:
    server.next(Trouble(status=400, code="context_length_exceeded"))
    reply = ask(make()[0])
    assert "context_length_exceeded" in reply.refused
    assert reply.tokens_in == reply.tokens_out == 0


def test_a_wrong_key_shows_nowhere(
    server: LanguageModelServer, make: Callable[..., Made], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client, _ = make(api_key="sk-another-secret")
    with pytest.raises(FailedPrecondition, match="refuses the key") as caught:
        ask(client)
    assert server.requests
    for seen in (caught.value.message, caplog.text, repr(client), repr(vars(client)), repr(client.endpoint)):
        assert "sk-another-secret" not in seen


def test_a_key_of_the_environment_goes_to_no_other_endpoint(
    server: LanguageModelServer, make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, KEY)
    with pytest.raises(FailedPrecondition, match="refuses the key"):
        ask(make(api_key="")[0])
    assert all(KEY not in value for headers in server.headers for value in headers.values())


def test_no_more_requests_are_under_way_than_the_endpoint_takes(
    server: LanguageModelServer, make: Callable[..., Made]
) -> None:
    client, _ = make(max_concurrency=3)
    server.gate.clear()
    asked: list[Future[Reply]] = [client.submit(lambda: client.ask(QUESTION, tokens=10)) for _ in range(9)]
    for _ in range(3):
        assert server.arrived.acquire(timeout=20)
    assert not server.arrived.acquire(timeout=0.1)
    server.gate.set()
    assert len(wait(asked, timeout=20).done) == 9
    assert server.most_at_once == 3


def test_pauses_double_up_to_the_longest_and_differ() -> None:
    backoff = Backoff(first_s=1, longest_s=5)
    assert [backoff.pause_s(attempt, 1.0) for attempt in range(1, 6)] == [1, 2, 4, 5, 5]
    assert backoff.pause_s(2, 0.0) == 1
