"""Answers that a real Label Studio cannot be brought to give."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from scheduler.label_studio.client import PAGE, LabelStudioClient
from scheduler.label_studio.servers import LabelStudioServer
from sealpool.errors import FailedPrecondition, NotFound, SealpoolError, Unavailable

OLD_TOKEN = "0" * 40
PERSONAL_TOKEN = "head.body.signature"


@contextmanager
def client_of(
    folder: Path, answer: Callable[[httpx.Request], httpx.Response], *, token: str = OLD_TOKEN
) -> Iterator[LabelStudioClient]:
    """Yield a client of a Label Studio that answers so."""
    (folder / "token").write_text(token)
    server = LabelStudioServer(url="http://studio", token_file=folder / "token")
    client = LabelStudioClient(server, transport=httpx.MockTransport(answer))
    yield client
    client.close()


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (httpx.Response(500), Unavailable, "in trouble: it answers 500"),
        (httpx.Response(429), Unavailable, "in trouble: it answers 429"),
        (httpx.Response(401), FailedPrecondition, "refuses the token"),
        (httpx.Response(403), FailedPrecondition, "refuses the token"),
        (httpx.Response(404), NotFound, "/api/projects/3"),
        (httpx.Response(301, headers={"location": "https://x"}), FailedPrecondition, "elsewhere"),
        (httpx.Response(400, json={"detail": "too  odd"}), FailedPrecondition, "400 too odd"),
        (httpx.Response(400, text="<html>"), FailedPrecondition, "400"),
        (httpx.Response(200, text="<html>"), Unavailable, "not JSON"),
        (httpx.Response(200, json=[1]), Unavailable, "something else than its API promises"),
        (httpx.Response(200, json={"description": "no id"}), Unavailable, "something else than its API promises"),
    ],
)
def test_every_trouble_is_an_error_of_ours(
    tmp_path: Path, answer: httpx.Response, kind: type[SealpoolError], told: str
) -> None:
    with client_of(tmp_path, lambda _: answer) as client, pytest.raises(kind, match=told) as raised:
        client.get_project(3)
    assert OLD_TOKEN not in raised.value.message


def test_a_lost_connection_is_unavailable(tmp_path: Path) -> None:
    def break_off(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("broken", request=request)

    with client_of(tmp_path, break_off) as client, pytest.raises(Unavailable, match="broken"):
        client.get_project(3)


def test_a_personal_token_is_exchanged_again_when_its_access_ran_out(tmp_path: Path) -> None:
    exchanged: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/token/refresh/":
            exchanged.append(json.loads(request.content))
            return httpx.Response(200, json={"access": f"access{len(exchanged)}"})
        if request.headers["authorization"] == "Bearer access1":
            return httpx.Response(401)
        assert request.headers["authorization"] == "Bearer access2"
        return httpx.Response(200, json={"id": 3})

    with client_of(tmp_path, answer, token=PERSONAL_TOKEN) as client:
        assert client.get_project(3).id == 3
    assert exchanged == [{"refresh": PERSONAL_TOKEN}] * 2


def test_changes_are_read_by_time_so_that_none_slips_from_page_to_page(tmp_path: Path) -> None:
    times = [f"2026-01-01T00:00:{i // 10:02d}.{i % 10}00000Z" for i in range(PAGE + 3)]

    def answer(request: httpx.Request) -> httpx.Response:
        (kind, _) = json.loads(request.url.params["query"])["filters"]["items"]
        since = kind.get("child_filter", {}).get("value", "")
        left = [i for i, time in enumerate(times) if time > since][:PAGE]
        return httpx.Response(200, json={"tasks": [{"id": i, "updated_at": times[i]} for i in left]})

    with client_of(tmp_path, answer) as client:
        assert [task.id for page in client.annotated_after(3, "") for task in page] == list(range(PAGE + 3))


def test_changes_of_one_moment_are_read_although_a_page_ends_between_them(tmp_path: Path) -> None:
    times = [f"2026-01-01T00:00:{i // 10:02d}.{i % 10}00000Z" for i in range(PAGE - 1)]
    times += ["2026-01-01T01:00:00.000000Z"] * 3

    def answer(request: httpx.Request) -> httpx.Response:
        (kind, _) = json.loads(request.url.params["query"])["filters"]["items"]
        since = kind.get("child_filter", {}).get("value", "")
        left = [i for i, time in enumerate(times) if time > since][:PAGE]
        return httpx.Response(200, json={"tasks": [{"id": i, "updated_at": times[i]} for i in left]})

    with client_of(tmp_path, answer) as client:
        assert [task.id for page in client.annotated_after(3, "") for task in page] == list(range(PAGE + 2))


@pytest.mark.parametrize("odd", [{"id": 2**40}, {"id": float("inf")}, {"updated_at": "0001-01-01T00:00:00+10:00"}])
def test_numbers_and_times_that_no_database_keeps_are_no_answer(tmp_path: Path, odd: dict[str, Any]) -> None:
    task = {"id": 1, "updated_at": "2026-01-01T00:00:00Z", **odd}
    content = json.dumps({"tasks": [task]})
    with (
        client_of(tmp_path, lambda _: httpx.Response(200, text=content)) as client,
        pytest.raises(Unavailable, match="something else"),
    ):
        client.tasks_by_id(3, [1])


def test_a_client_that_was_stopped_sends_nothing(tmp_path: Path) -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"id": 3})

    with client_of(tmp_path, answer) as client:
        client.stop()
        with pytest.raises(Unavailable, match="stopping"):
            client.get_project(3)
    assert not sent


def test_somebody_elses_task_has_no_item(tmp_path: Path) -> None:
    tasks = [
        {"id": i, "updated_at": "2026-01-01T00:00:00Z", "data": data}
        for i, data in enumerate([{}, None, {"item_id": 3}, {"item_id": "a\0b"}, {"item_id": "\ud800"}])
    ]
    content = json.dumps({"tasks": tasks})
    with client_of(tmp_path, lambda _: httpx.Response(200, text=content)) as client:
        assert [task.item_id for page in client.tasks_after(3, 0) for task in page] == [""] * 5


def test_an_annotator_who_is_gone_is_called_by_number_and_asked_for_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(404)

    with client_of(tmp_path, answer) as client:
        assert [client.annotator(7), client.annotator(7)] == ["label-studio-user-7"] * 2
    assert asked == ["/api/users/7/"]
