"""Answers of an endpoint that mean harm, or are only odd: none costs twice, hangs or meets a fault of ours."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from scheduler.oracles.llm import connections
from scheduler.oracles.llm.client import LONGEST_HOLD_S
from sealpool.errors import FailedPrecondition, Unavailable
from tests.support.language_model import LanguageModelServer, Trouble, says
from tests.unit.scheduler.test_language_model_client import Made, ask, count, make, server

__all__ = ["make", "server"]


def completion(content: Any, usage: Any = None) -> bytes:
    message = {"role": "assistant", "content": content}
    told = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "usage": usage}
    return json.dumps({**told, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()


def test_half_a_character_at_the_end_of_a_cut_answer_can_be_kept(
    server: LanguageModelServer, make: Callable[..., Made]
) -> None:
    server.next(Trouble(body=completion("\ud83d")))
    assert ask(make()[0]).text == "?"


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": None, "completion_tokens": "many"},
        {"prompt_tokens": -1, "completion_tokens": 10**30},
        {"prompt_tokens": 1.5},
        [],
    ],
)
def test_tokens_that_are_no_number_are_estimated_and_asked_for_once(
    server: LanguageModelServer, make: Callable[..., Made], usage: Any
) -> None:
    server.next(Trouble(body=completion(says("a"), usage)))
    reply = ask(make()[0])
    assert 0 < reply.tokens_in < 100
    assert 0 < reply.tokens_out < 100
    assert len(server.requests) == 1


def test_an_answer_that_is_no_text_is_asked_for_again(server: LanguageModelServer, make: Callable[..., Made]) -> None:
    client, metrics = make()
    server.next(Trouble(body=completion([{"type": "text", "text": says("a")}])))
    assert ask(client).text == says("a")
    assert count(metrics, "garbage") == 1


def test_a_refusal_whose_code_is_no_text_is_a_refusal(server: LanguageModelServer, make: Callable[..., Made]) -> None:
    server.next(Trouble(status=400, code=["x"]))  # type: ignore[arg-type]
    with pytest.raises(FailedPrecondition, match="HTTP 400"):
        ask(make()[0])


@pytest.mark.parametrize("told", ["36000", "1e300", "inf"])
def test_nobody_makes_us_wait_for_ever(server: LanguageModelServer, make: Callable[..., Made], told: str) -> None:
    server.next(Trouble(status=429, headers={"Retry-After": told}))
    with pytest.raises(Unavailable) as caught:
        ask(make()[0])
    assert caught.value.retry_after_s == pytest.approx(LONGEST_HOLD_S, abs=60)


def test_an_answer_without_end_is_given_up(
    server: LanguageModelServer, make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_ANSWER_BYTES", 10_000)
    server.next(Trouble(body=completion("x" * 10_000)))
    client, metrics = make()
    assert ask(client).text == says("a")
    assert count(metrics, "connection") == 1


@pytest.fixture
def dripping() -> Iterator[str]:
    """Serve answers that send a blank now and then, and never end."""
    listening = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        with listening, listening.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
            while not over.wait(0.02):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    over.set()
    thread.join()


def test_an_answer_that_comes_in_drips_is_given_up_in_time(make: Callable[..., Made], dripping: str) -> None:
    client, metrics = make(base_url=dripping, timeout_s=0.3, max_attempts=1)
    with pytest.raises(Unavailable, match="no answer within"):
        ask(client)
    assert count(metrics, "timeout") == 1
