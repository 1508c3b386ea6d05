"""The HTTP front: every route, tokens, limits, events and the end, over real connections."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from google.protobuf.json_format import MessageToDict

from sealpool.errors import Unavailable
from sealpool.runtime.tokens import Role, edited, make_token
from tests.unit.scheduler.world import World, make_spec

HTTP = {"http_listen": "127.0.0.1:0"}


@pytest.fixture
def front(make_world: Callable[..., World]) -> Iterator[Callable[..., httpx.Client]]:
    """Begin a world with a campaign "c" whose seed waits, and connect to its front."""
    clients: list[httpx.Client] = []

    def begin(headers: dict[str, str] | None = None, **settings: Any) -> httpx.Client:
        world = make_world(**{**HTTP, **settings})
        base_url = f"http://{world.scheduler.http_address}"
        clients.append(httpx.Client(base_url=base_url, headers=headers, timeout=20))
        clients[-1].world = world  # type: ignore[attr-defined]
        return clients[-1]

    yield begin
    for client in clients:
        client.close()


@pytest.fixture
def http(front: Callable[..., httpx.Client]) -> httpx.Client:
    client = front()
    client.world.client.create_campaign(make_spec())  # type: ignore[attr-defined]
    client.world.client.run_round("c")  # type: ignore[attr-defined]
    return client


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """For tests that change nothing."""
    world = World(tmp_path_factory.mktemp("shared"), **HTTP)
    world.client.create_campaign(make_spec())
    with httpx.Client(base_url=f"http://{world.scheduler.http_address}", timeout=20) as client:
        yield client
    world.close()


def world_of(client: httpx.Client) -> World:
    return client.world  # type: ignore[attr-defined,no-any-return]


def ok(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def problem(answer: httpx.Response, status: int, error: str, field: str | None = None) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert (answer.status_code, found["status"], found["error"], found.get("field")) == (status, status, error, field)
    return found


def lease(http: httpx.Client, count: int = 6) -> list[dict[str, Any]]:
    body = {"annotator": "ann", "max_tasks": count}
    return list(ok(http.post("/v1/campaigns/c/tasks:lease", json=body))["tasks"])


def submit(http: httpx.Client, *items: str, **more: Any) -> httpx.Response:
    labels = [{"item_id": item, "classes": ["a"]} for item in items]
    return http.post("/v1/campaigns/c/labels", json={"annotator": "ann", "labels": labels, **more})


def test_a_campaign_is_begun_watched_paused_and_archived(front: Callable[..., httpx.Client]) -> None:
    http = front()
    spec = MessageToDict(make_spec(seed=2**63 + 1), preserving_proto_field_name=True)
    assert ok(http.get("/v1/campaigns")) == {"campaigns": []}
    made = ok(http.post("/v1/campaigns", json={"spec": spec}))
    assert made["campaign"]["spec"]["seed"] == str(2**63 + 1)
    assert ok(http.get("/v1/campaigns/c")) == {"campaign": made["campaign"]}
    for verb, state in (("pause", "PAUSED"), ("resume", "ACTIVE"), ("archive", "ARCHIVED")):
        assert ok(http.post(f"/v1/campaigns/c:{verb}"))["campaign"]["state"] == f"CAMPAIGN_STATE_{state}"
    assert ok(http.get("/v1/campaigns"))["campaigns"] == []
    assert len(ok(http.get("/v1/campaigns?include_archived=true"))["campaigns"]) == 1


def test_an_item_goes_from_a_round_to_a_label(http: httpx.Client) -> None:
    tasks = lease(http)
    assert [task["text"] for task in tasks] == [f"text {int(task['item_id'][1:])}" for task in tasks]
    answer = ok(submit(http, *(task["item_id"] for task in tasks)))
    assert (answer["accepted"], answer["labels"]) == (6, 6)
    assert [one.item_id for one in world_of(http).labels()] == [task["item_id"] for task in tasks]
    assert [one["number"] for one in ok(http.get("/v1/campaigns/c/rounds"))["rounds"]] == [0]


def test_labels_are_listed_page_by_page(http: httpx.Client) -> None:
    items = [task["item_id"] for task in lease(http)]
    submit(http, *items)
    found, after = [], "0"
    while after:
        page = ok(http.get("/v1/campaigns/c/labels", params={"after_sequence": after, "limit": 4}))
        found += [one["item_id"] for one in page["labels"]]
        assert len(page["labels"]) <= 4
        after = page.get("next_after_sequence", "")
    assert found == items
    problem(http.get("/v1/campaigns/c/labels?limit=0"), 400, "InvalidArgument", "limit")


def test_a_repeated_call_with_the_same_key_changes_nothing(http: httpx.Client) -> None:
    item = lease(http)[0]["item_id"]
    key = {"Idempotency-Key": "k1"}
    body = {"annotator": "ann", "labels": [{"item_id": item, "classes": ["a"]}]}
    first = http.post("/v1/campaigns/c/labels", json=body, headers=key)
    assert ok(http.post("/v1/campaigns/c/labels", json=body, headers=key)) == ok(first)
    assert ok(http.post("/v1/campaigns/c/labels", json={**body, "request_id": "k1"})) == ok(first)
    assert len(world_of(http).labels()) == 1
    other = http.post("/v1/campaigns/c/labels", json={**body, "request_id": "k2"}, headers=key)
    problem(other, 400, "InvalidArgument", "request_id")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"annotator": 7}, "annotator"),
        ({"annotator": "x", "nobody": 1}, "nobody"),
        ({"labels": {}}, "labels"),
        ({"labels": [{"item_id": "i000", "classes": [None]}]}, "labels[0].classes[0]"),
        ({"labels": [{"item_id": "i000", "confidence": "high"}]}, "labels[0].confidence"),
        ({"labels": [{"item_id": "i000", "outcome": "MAYBE"}]}, "labels[0].outcome"),
        ({"labels": [{"item_id": "\ud800"}]}, "labels[0].item_id"),
        ({"labels": [{"item_id": "a\0b"}]}, "labels[0].item_id"),
        ({"campaign": "d"}, "campaign"),
        ([], "body"),
        (None, "body"),
        ({"annotator": "x", "labels": [{"item_id": "i000", "classes": ["c"]}]}, "labels[0].classes"),
    ],
)
def test_a_wrong_body_is_told_the_field_at_fault(shared: httpx.Client, body: Any, field: str) -> None:
    answer = shared.post(
        "/v1/campaigns/c/labels", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    problem(answer, 400, "InvalidArgument", field)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b"1" * 5_000, b'{"annotator": NaN}'])
def test_a_body_that_is_not_json_is_refused(shared: httpx.Client, content: bytes) -> None:
    answer = shared.post("/v1/campaigns/c/labels", content=content, headers={"Content-Type": "application/json"})
    problem(answer, 400, "InvalidArgument", "body")


def test_a_body_of_another_type_or_too_large_is_refused(front: Callable[..., httpx.Client]) -> None:
    http = front(max_message_bytes=1 << 20)
    problem(http.post("/v1/campaigns", content=b"{}"), 415, "InvalidArgument", "content-type")
    large = b'{"request_id": "' + b"x" * (1 << 20) + b'"}'
    answer = http.post("/v1/campaigns", content=large, headers={"Content-Type": "application/json"})
    problem(answer, 413, "ResourceExhausted", "max_message_bytes")


def test_what_is_not_there_is_a_problem_too(http: httpx.Client) -> None:
    problem(http.get("/v1/campaigns/nobody"), 404, "NotFound", "campaign")
    problem(http.get("/v2"), 404, "NotFound", "path")
    problem(http.get("/v1/campaigns?archived=1"), 400, "InvalidArgument", "archived")
    wrong = http.delete("/v1/campaigns/c")
    problem(wrong, 405, "InvalidArgument", "method")
    assert {"GET", "PUT"} & set(wrong.headers["allow"].replace(" ", "").split(","))


def test_the_moment_and_a_taken_name_are_conflicts(http: httpx.Client) -> None:
    spec = MessageToDict(make_spec(), preserving_proto_field_name=True)
    problem(http.post("/v1/campaigns", json={"spec": spec}), 409, "AlreadyExists", "campaign")
    assert http.post("/v1/campaigns/c/rounds:run").status_code == 409


def test_tokens_roles_and_pools_are_those_of_grpc(front: Callable[..., httpx.Client], tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    now = datetime(2024, 1, 1, tzinfo=UTC)
    secrets = {}
    tokens = []
    for name, role, pools in (("r", Role.READ, ["*"]), ("w", Role.WRITE, ["*"]), ("o", Role.ADMIN, ["other"])):
        secrets[name], token = make_token(name, role=role, pools=pools, created=now)
        tokens.append(token)
    with edited(file) as replace:
        replace(tokens)
    http = front(tokens_file=file)
    world_of(http).scheduler._campaigns.create(_create())

    def as_(name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {secrets[name]}"}

    assert http.get("/healthz").status_code == http.get("/openapi.json").status_code == 200
    refused = http.get("/v1/campaigns/c")
    problem(refused, 401, "Unauthenticated", "authorization")
    assert refused.headers["www-authenticate"] == "Bearer"
    problem(http.get("/v1/campaigns/c", headers={"Authorization": "Bearer x"}), 401, "Unauthenticated", "authorization")
    assert http.get("/v1/campaigns/c", headers=as_("r")).status_code == 200
    problem(http.post("/v1/campaigns/c:pause", headers=as_("r")), 403, "PermissionDenied", "authorization")
    assert http.post("/v1/campaigns/c:pause", headers=as_("w")).status_code == 200
    problem(http.get("/v1/campaigns/c", headers=as_("o")), 403, "PermissionDenied", "name")
    assert ok(http.get("/v1/campaigns", headers=as_("o"))) == {"campaigns": []}
    problem(http.get("/v1/campaigns/c/events", headers=as_("o")), 403, "PermissionDenied", "campaign")


def _create() -> Any:
    from sealpool.v1 import scheduler_pb2

    return scheduler_pb2.CreateCampaignRequest(spec=make_spec())


def test_calls_over_http_and_grpc_share_their_permits(front: Callable[..., httpx.Client]) -> None:
    http = front(max_concurrent_calls=1)
    index = world_of(http).index
    release = index.troubles.hold("get_pool")
    spec = MessageToDict(make_spec(), preserving_proto_field_name=True)
    waiting = threading.Thread(target=lambda: http.post("/v1/campaigns", json={"spec": spec}))
    waiting.start()
    try:
        assert index.troubles.reached["get_pool"].wait(10)
        answer = httpx.get(f"{http.base_url}/v1/campaigns")
        problem(answer, 429, "ResourceExhausted", "max_concurrent_calls")
        assert answer.headers["retry-after"] == "1"
        with pytest.raises(Exception, match="max_concurrent_calls"):
            world_of(http).client.list_campaigns()
    finally:
        release()
        waiting.join()
    assert len(ok(http.get("/v1/campaigns"))["campaigns"]) == 1


def test_a_service_behind_that_is_away_is_unavailable(front: Callable[..., httpx.Client]) -> None:
    http = front()
    world_of(http).index.troubles.once("get_pool", Unavailable("away", retry_after_s=2.5))
    spec = MessageToDict(make_spec(), preserving_proto_field_name=True)
    answer = http.post("/v1/campaigns", json={"spec": spec})
    assert problem(answer, 503, "Unavailable")["retry_after_seconds"] == 2.5
    assert answer.headers["retry-after"] == "3"


def test_a_fault_of_ours_is_told_by_its_id_alone(front: Callable[..., httpx.Client]) -> None:
    http = front()

    class Away(ZeroDivisionError):
        pass

    world_of(http).index.troubles.once("get_pool", Away("of our own"))  # type: ignore[arg-type]
    spec = MessageToDict(make_spec(), preserving_proto_field_name=True)
    said = problem(http.post("/v1/campaigns", json={"spec": spec}), 500, "InternalError")
    assert "of our own" not in said["message"]
    assert said["message"].split()[2].strip(";") in world_of(http).log.getvalue()


def events_of(lines: Iterator[str], count: int) -> list[dict[str, str]]:
    found: list[dict[str, str]] = [{}]
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            found[-1][name] = value
        elif not line and found[-1]:
            if len(found) == count:
                return found
            found.append({})
    return found[:-1]


def test_events_are_resumed_after_the_last_one_seen(http: httpx.Client) -> None:
    with http.stream("GET", "/v1/campaigns/c/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        seen = events_of(lines, 2)
        assert [one["event"] for one in seen] == ["campaign_state_changed", "round_changed"]
        assert json.loads(seen[0]["data"])["sequence"] == seen[0]["id"]
    with http.stream("GET", "/v1/campaigns/c/events", headers={"Last-Event-ID": seen[0]["id"]}) as stream:
        assert events_of(stream.iter_lines(), 1) == seen[1:]
    problem(
        http.get("/v1/campaigns/c/events", headers={"Last-Event-ID": "x"}), 400, "InvalidArgument", "after_sequence"
    )
    problem(http.get("/v1/campaigns/nobody/events"), 404, "NotFound", "campaign")


def test_a_silent_stream_says_that_it_is_there_and_then_tells_what_happens(
    front: Callable[..., httpx.Client],
) -> None:
    http = front(http_heartbeat_s=0.05)
    world_of(http).client.create_campaign(make_spec())
    with http.stream("GET", "/v1/campaigns/c/events?after_sequence=1") as stream:
        lines = stream.iter_lines()
        while next(lines) != ": still here":
            pass
        world_of(http).client.pause_campaign("c")
        (event,) = events_of(lines, 1)
        assert json.loads(event["data"])["campaign_state_changed"]["state"] == "CAMPAIGN_STATE_PAUSED"
        world_of(http).client.archive_campaign("c")
        (event,) = events_of(lines, 1)
        assert list(lines) == []
    ended = http.get("/v1/campaigns/c/events", headers={"Last-Event-ID": event["id"]})
    assert (ended.status_code, ended.content) == (204, b"")


def test_watchers_are_counted_and_their_places_come_back_when_they_leave(front: Callable[..., httpx.Client]) -> None:
    http = front(max_watchers=1, http_heartbeat_s=0.05)
    world_of(http).client.create_campaign(make_spec())
    with http.stream("GET", "/v1/campaigns/c/events") as stream:
        lines = stream.iter_lines()  # a reader that is dropped closes the stream
        events_of(lines, 1)
        problem(httpx.get(f"{http.base_url}/v1/campaigns/c/events"), 429, "ResourceExhausted", "max_watchers")
    admission = world_of(http).server.rules.admission
    assert admission.wait_until_unused(10)
    with http.stream("GET", "/v1/campaigns/c/events") as stream:
        assert stream.status_code == 200


def test_stopping_ends_streams_with_a_word_and_refuses_what_comes_later(http: httpx.Client) -> None:
    world = world_of(http)
    with http.stream("GET", "/v1/campaigns/c/events?after_sequence=1000") as stream:
        lines = stream.iter_lines()
        assert next(lines) == ": events follow"
        stopping = threading.Thread(target=world.server.stop)
        stopping.start()
        (last,) = events_of(lines, 1)
        assert (last["event"], json.loads(last["data"])["error"]) == ("error", "Unavailable")
    stopping.join()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{http.base_url}/healthz")


def test_readiness_ends_when_stopping_begins(http: httpx.Client) -> None:
    world = world_of(http)
    assert http.get("/readyz").status_code == 200
    release = world.index.troubles.hold("get_pool")
    spec = MessageToDict(make_spec(name="d"), preserving_proto_field_name=True)
    answers: list[httpx.Response] = []
    url = f"{http.base_url}/v1/campaigns"
    waiting = threading.Thread(target=lambda: answers.append(httpx.post(url, json={"spec": spec}, timeout=20)))
    waiting.start()
    assert world.index.troubles.reached["get_pool"].wait(10)
    drained = threading.Event()
    world.server.on_drain(drained.set)
    stopping = threading.Thread(target=world.server.stop)
    stopping.start()
    assert drained.wait(10)
    assert http.get("/readyz").status_code == 503
    problem(http.get("/v1/campaigns"), 503, "Unavailable")
    release()
    stopping.join()
    waiting.join()
    assert answers[0].status_code == 200  # a call under way is answered to its end


def test_pages_of_other_sites_change_nothing_and_names_that_lead_here_are_refused(http: httpx.Client) -> None:
    evil = {"Origin": "https://evil.example"}
    problem(http.post("/v1/campaigns/c:pause", headers=evil), 403, "PermissionDenied", "origin")
    problem(http.get("/v1/campaigns", headers={"Host": "evil.example:7323"}), 403, "PermissionDenied", "host")
    own = {"Origin": str(http.base_url).rstrip("/")}
    assert http.post("/v1/campaigns/c:pause", headers=own).status_code == 200


def test_pages_of_listed_origins_may_call(front: Callable[..., httpx.Client]) -> None:
    http = front(http_cors_origins=("https://labels.example",))
    world_of(http).client.create_campaign(make_spec())
    origin = {"Origin": "https://labels.example"}
    asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "idempotency-key"}
    assert http.options("/v1/campaigns/c:pause", headers=asked).status_code == 200
    answer = http.post("/v1/campaigns/c:pause", headers=origin)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://labels.example")


def test_another_room_adds_a_router_of_its_own(tmp_path: Path) -> None:
    from fastapi import APIRouter

    from scheduler.http.opening import open_front

    world = World(tmp_path, **HTTP)
    router = APIRouter(prefix="/other", tags=["Other"])

    @router.post("/hook")
    def hook() -> dict[str, int]:
        raise Unavailable("the hook")

    front = open_front(
        world.settings,
        world.scheduler.servicers(),
        rules=world.server.rules,
        is_ready=lambda: True,
        routers=[lambda: router],
        log=world.scheduler.pool._log,
    )
    assert front is not None
    front.start()
    try:
        problem(httpx.post(f"http://{front.address}/other/hook"), 503, "Unavailable")
        paths = httpx.get(f"http://{front.address}/openapi.json").json()["paths"]
        assert {"/other/hook", "/v1/campaigns"} <= set(paths)
    finally:
        front.close()
        world.close()


def test_calls_over_http_are_counted_under_the_methods_names(http: httpx.Client) -> None:
    http.get("/v1/campaigns/nobody")
    labels = {"method": "GetCampaign", "code": "NOT_FOUND"}
    assert world_of(http).registry.get_sample_value("sealpool_scheduler_requests_total", labels) == 1


def test_tls_is_that_of_the_certificate_and_asks_for_the_clients_where_told(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    files = {name: tmp_path / f"{name}.pem" for name in ("tls_certificate", "tls_key", "tls_client_ca")}
    issued.cert_chain_pems[0].write_to_path(files["tls_certificate"])
    issued.private_key_pem.write_to_path(files["tls_key"])
    authority.cert_pem.write_to_path(files["tls_client_ca"])
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    world = World(tmp_path, **HTTP, **files)
    try:
        url = f"https://{world.scheduler.http_address}/v1/campaigns"
        with pytest.raises(httpx.TransportError):
            httpx.get(url, verify=trusting)
        authority.issue_cert("ada@example.org").configure_cert(trusting)
        assert httpx.get(url, verify=trusting).json() == {"campaigns": []}
    finally:
        world.close()
