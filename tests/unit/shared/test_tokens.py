"""Tokens: the file, what a server makes of it, and how a client sends one."""

import io
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from prometheus_client import CollectorRegistry

from sealpool.cli.app import run
from sealpool.client import ClientOptions, IndexClient
from sealpool.errors import InvalidArgument, PermissionDenied, Unauthenticated
from sealpool.runtime.access import INDEX_ACCESS, Access
from sealpool.runtime.callers import caller_of
from sealpool.runtime.logs import make_logger
from sealpool.runtime.server import ServiceServer
from sealpool.runtime.settings import ServiceSettings
from sealpool.runtime.token_book import TokenBook
from sealpool.runtime.tokens import Role, Token, edited, make_token, parse_tokens, read_tokens
from sealpool.types import Items
from sealpool.v1 import index_pb2, index_pb2_grpc, learner_pb2, scheduler_pb2

NOW = datetime(2024, 1, 1, tzinfo=UTC)
INDEX = index_pb2.DESCRIPTOR.services_by_name["IndexService"]
LEARNER = learner_pb2.DESCRIPTOR.services_by_name["LearnerService"]
SCHEDULER = scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"]


class Servicer(index_pb2_grpc.IndexServiceServicer):
    def GetPool(self, request: index_pb2.GetPoolRequest, context: grpc.ServicerContext) -> index_pb2.GetPoolResponse:
        may_also = caller_of(context).may_use("private")
        return index_pb2.GetPoolResponse(pool=index_pb2.Pool(version=1, read_only=not may_also))

    def ListPools(
        self, request: index_pb2.ListPoolsRequest, context: grpc.ServicerContext
    ) -> index_pb2.ListPoolsResponse:
        return index_pb2.ListPoolsResponse()

    def CreatePool(
        self, request: index_pb2.CreatePoolRequest, context: grpc.ServicerContext
    ) -> index_pb2.CreatePoolResponse:
        return index_pb2.CreatePoolResponse()

    def Upsert(
        self, request_iterator: Iterator[index_pb2.UpsertRequest], context: grpc.ServicerContext
    ) -> index_pb2.UpsertResponse:
        return index_pb2.UpsertResponse(inserted=sum(len(request.items.ids) for request in request_iterator))

    def ScanItems(
        self, request: index_pb2.ScanItemsRequest, context: grpc.ServicerContext
    ) -> Iterator[index_pb2.ScanItemsResponse]:
        yield index_pb2.ScanItemsResponse(pool_version=1)


def server_of(
    settings: ServiceSettings, log: io.StringIO, *, access: Mapping[str, Access] = INDEX_ACCESS
) -> ServiceServer:
    return ServiceServer(
        settings,
        service="index_server",
        descriptors=[INDEX],
        registry=CollectorRegistry(),
        log=make_logger(settings, "index_server", stream=log),
        access=access,
    )


class World:
    """A file of tokens, and a server that reads it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "tokens.json"
        self.secrets = {
            "reader": self.add("reader", Role.READ),
            "reports": self.add("reports", Role.WRITE, "reports*", "other"),
            "admin": self.add("admin", Role.ADMIN),
            "late": self.add("late", Role.ADMIN, expires_at=NOW + timedelta(days=1)),
        }
        self.log = io.StringIO()
        settings = ServiceSettings(tokens_file=self.file)
        self.server = server_of(settings, self.log)
        index_pb2_grpc.add_IndexServiceServicer_to_server(Servicer(), self.server.grpc_server)
        self.server.start()
        self.server.set_serving()

    def add(self, name: str, role: Role, *pools: str, expires_at: datetime | None = None) -> str:
        secret, token = make_token(name, role=role, pools=pools or ["*"], created=NOW, expires_at=expires_at)
        with edited(self.file) as replace:
            replace([*(read_tokens(self.file) if self.file.exists() else ()), token])
        return secret

    def client(self, who: str) -> IndexClient:
        options = ClientOptions(token=self.secrets.get(who, who), retry_for_s=0)
        return IndexClient(self.server.address, options=options)

    def refusals(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://{self.server.metrics_address}/metrics") as answer:
            lines = [line for line in answer.read().decode().splitlines() if "refusals_total{" in line]
        return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in lines}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("tokens"))
    yield made
    made.server.stop()


class Clock:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def book_of(file: Path, clock: Clock, log: io.StringIO, *, now: datetime = NOW) -> TokenBook:
    return TokenBook(file, log=make_logger(ServiceSettings(), "x", stream=log), monotonic=clock, now=lambda: now)


def put(file: Path, *tokens: Token) -> None:
    with edited(file) as replace:
        replace(tokens)


def token(name: str = "one", *, expires_at: datetime | None = None) -> tuple[str, Token]:
    return make_token(name, role=Role.READ, pools=["*"], created=NOW, expires_at=expires_at)


# The file


def test_the_file_tells_no_token_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    secret, known = token()
    put(tmp_path / "t.json", known)
    assert secret not in (tmp_path / "t.json").read_text()
    assert (tmp_path / "t.json").stat().st_mode & 0o777 == 0o600
    assert read_tokens(tmp_path / "t.json") == (known,)
    assert known.sha256 not in repr(known)


def test_a_changed_file_keeps_the_mode_that_lets_the_service_read_it(tmp_path: Path) -> None:
    put(tmp_path / "t.json", token()[1])
    (tmp_path / "t.json").chmod(0o640)
    put(tmp_path / "t.json")
    assert (tmp_path / "t.json").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]


GOOD = {"name": "a", "role": "read", "pools": ["*"], "sha256": "0" * 64, "created": "2026-01-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"role": "king"}, "token 1: KeyError"),
        ({"name": ""}, "its name is none"),
        ({"sha256": "abc"}, "64 hex digits"),
        ({"sha256": 5}, "token 1"),
        ({"pools": ["a*b"]}, r"'a\*b' is neither"),
        ({"pools": []}, "pools: none"),
        ({"pools": [["a"]]}, "token 1"),
        ({"created": "2026-01-01"}, "no time zone"),
        ({"expires_at": "soon"}, "soon"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_number(change: dict[str, object], said: str) -> None:
    assert parse_tokens(json.dumps({"tokens": [GOOD]}).encode())[0].role is Role.READ
    with pytest.raises(InvalidArgument, match=said) as caught:
        parse_tokens(json.dumps({"tokens": [{**GOOD, **change}]}).encode())
    assert caught.value.field == "tokens_file"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"tokens": 1}', b"\xff", b'{"tokens": [1]}'])
def test_what_is_no_file_of_tokens_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidArgument, match="tokens_file"):
        parse_tokens(content)


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="twice"):
        parse_tokens(json.dumps({"tokens": [GOOD, {**GOOD, "sha256": "1" * 64}]}).encode())


@pytest.mark.parametrize(
    ("pools", "pool", "may"),
    [
        (["*"], "any", True),
        (["reports*"], "reports-2026", True),
        (["reports*"], "reports", True),
        (["reports*"], "report", False),
        (["reports"], "reports-2026", False),
        (["a", "b"], "b", True),
        (["a*"], "", False),
    ],
)
def test_a_scope_is_a_name_or_the_beginning_of_one(pools: Sequence[str], pool: str, may: bool) -> None:
    _, known = make_token("n", role=Role.READ, pools=pools, created=NOW)
    assert known.may_use(pool) is may


# The book


def test_a_changed_file_is_read_again_after_a_second_and_not_before(tmp_path: Path) -> None:
    first, second, clock = token("first"), token("second"), Clock()
    put(tmp_path / "t.json", first[1])
    book = book_of(tmp_path / "t.json", clock, io.StringIO())
    put(tmp_path / "t.json", second[1])
    clock.s += 0.9
    assert book.find(first[0]) == first[1]
    clock.s += 0.2
    assert book.find(second[0]) == second[1]
    assert book.find(first[0]) is None


@pytest.mark.parametrize("spoil", [lambda file: file.write_text("{"), lambda file: file.unlink()])
def test_a_spoilt_file_leaves_the_tokens_as_they_were_and_is_told_once(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    first, second, clock, log = token("first"), token("second"), Clock(), io.StringIO()
    put(tmp_path / "t.json", first[1])
    book = book_of(tmp_path / "t.json", clock, log)
    spoil(tmp_path / "t.json")
    for _ in range(3):
        clock.s += 2
        assert book.find(first[0]) == first[1]
    assert log.getvalue().count("tokens not read") == 1
    assert first[0] not in log.getvalue()
    put(tmp_path / "t.json", second[1])
    clock.s += 2
    assert book.find(second[0]) == second[1]


def test_an_expired_token_is_none(tmp_path: Path) -> None:
    secret, known = token(expires_at=NOW + timedelta(days=1))
    put(tmp_path / "t.json", known)
    assert book_of(tmp_path / "t.json", Clock(), io.StringIO()).find(secret) == known
    later = book_of(tmp_path / "t.json", Clock(), io.StringIO(), now=NOW + timedelta(days=1))
    assert later.find(secret) is None


# The server


@pytest.mark.parametrize("shown", ["", "unknown", "late"])
def test_a_call_without_a_good_token_is_refused(world: World, shown: str) -> None:
    with world.client(shown) as client, pytest.raises(Unauthenticated) as caught:
        client.get_pool("x")
    assert caught.value.field == "authorization"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc", "abc", "Bearer  "])
def test_a_header_that_shows_no_token_is_refused(world: World, header: str) -> None:
    with grpc.insecure_channel(world.server.address) as channel:
        stub = index_pb2_grpc.IndexServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetPool(index_pb2.GetPoolRequest(name="x"), metadata=(("authorization", header),))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_role_allows_what_those_below_it_do_and_no_more(world: World) -> None:
    with world.client("reader") as client:
        assert client.get_pool("x").version == 1
        with pytest.raises(
            PermissionDenied, match="Upsert needs the role write, and token 'reader' has read"
        ) as caught:
            client.upsert("x", Items(ids=[], vectors=None))
        assert caught.value.field == "authorization"
    with world.client("admin") as client:
        assert client.get_pool("x").version == 1
        client.create_pool(index_pb2.PoolSpec(name="x"))


def test_a_token_for_some_pools_is_refused_others(world: World) -> None:
    with world.client("reports") as client:
        assert client.get_pool("reports-1").version == 1
        assert client.get_pool("other").read_only  # of which the servicer knows by may_use
        assert len(list(client.scan_items("reports"))) == 1
        for call in (
            client.get_pool,
            lambda pool: list(client.scan_items(pool)),
            lambda pool: client.upsert(pool, list),
        ):
            with pytest.raises(PermissionDenied, match="'private' is none of the pools of token 'reports'") as caught:
                call("private")
            assert caught.value.field in ("name", "pool")


def test_the_first_message_of_a_stream_decides_and_is_not_lost(world: World) -> None:
    with grpc.insecure_channel(world.server.address) as channel:
        stub = index_pb2_grpc.IndexServiceStub(channel)
        items = index_pb2.UpsertRequest(pool="reports-1")
        items.items.ids.append("a")
        header = (("authorization", f"Bearer {world.secrets['reports']}"),)
        assert stub.Upsert(iter([items, items]), metadata=header).inserted == 2
        for requests in ([index_pb2.UpsertRequest()], [index_pb2.UpsertRequest(), items]):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Upsert(iter(requests), metadata=header)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert "not named" in caught.value.details()


def test_refusals_are_counted_by_a_reason_of_a_few(world: World) -> None:
    before = world.refusals()
    with world.client("unknown") as client, pytest.raises(Unauthenticated):
        client.get_pool("x")
    with world.client("reader") as client, pytest.raises(PermissionDenied):
        client.create_pool(index_pb2.PoolSpec(name="x"))
    with world.client("reports") as client, pytest.raises(PermissionDenied):
        client.get_pool("x")
    after = world.refusals()
    assert {reason: after[reason] - before.get(reason, 0) for reason in ("unauthenticated", "role", "pool")} == {
        "unauthenticated": 1,
        "role": 1,
        "pool": 1,
    }


def test_health_and_reflection_ask_for_no_token(world: World) -> None:
    with grpc.insecure_channel(world.server.address) as channel:
        request = health_pb2.HealthCheckRequest()
        serving = health_pb2.HealthCheckResponse.SERVING
        assert health_pb2_grpc.HealthStub(channel).Check(request, timeout=5).status == serving
        watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=5)
        assert next(watch).status == serving
        watch.cancel()
        assert "sealpool.v1.IndexService" in ProtoReflectionDescriptorDatabase(channel).get_services()


def test_a_token_made_or_revoked_counts_without_a_restart(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", "create", "--name", "new", "--role", "read", "--file", str(world.file)]) == 0
    secret = capsys.readouterr().out.strip()
    with world.client(secret) as client:
        assert _eventually(lambda: _is_let_in(client))
        assert run(["token", "revoke", "new", "--file", str(world.file)]) == 0
        assert _eventually(lambda: not _is_let_in(client))


@pytest.mark.parametrize("content", [None, "{"])
def test_a_file_that_is_none_stops_the_start_with_one_line(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "t.json").write_text(content)
    settings = ServiceSettings(tokens_file=tmp_path / "t.json")
    with pytest.raises(SystemExit, match="tokens_file="):
        server_of(settings, io.StringIO())


def test_tokens_in_clear_beyond_loopback_are_warned_of(tmp_path: Path) -> None:
    put(tmp_path / "t.json", token()[1])
    settings, log = ServiceSettings(tokens_file=tmp_path / "t.json", listen="0.0.0.0:0"), io.StringIO()
    server = server_of(settings, log)
    server.start()
    server.stop()
    assert "tokens travel in clear" in log.getvalue()


def test_a_method_without_an_entry_stops_the_start() -> None:
    missing = {name: access for name, access in INDEX_ACCESS.items() if name != "Search"}
    settings = ServiceSettings()
    with pytest.raises(ValueError, match="every method and no other: Search"):
        server_of(settings, io.StringIO(), access=missing)


# The client


def test_options_do_not_show_the_token() -> None:
    assert "very-secret" not in repr(ClientOptions(token="very-secret"))


def test_the_token_may_come_from_the_environment_or_a_file(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEALPOOL_TOKEN", world.secrets["reader"])
    with IndexClient(world.server.address) as client:
        assert client.get_pool("x").version == 1
    monkeypatch.setenv("SEALPOOL_TOKEN", "wrong")
    (tmp_path / "token").write_text(world.secrets["reader"] + "\n")
    with IndexClient(world.server.address, options=ClientOptions(token_file=tmp_path / "token")) as client:
        assert client.get_pool("x").version == 1
        (tmp_path / "token").write_text("")
        assert client.get_pool("x").version == 1


def test_a_token_file_that_changes_is_followed(world: World, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of-yesterday")
    options = ClientOptions(token_file=tmp_path / "token", retry_for_s=0)
    with IndexClient(world.server.address, options=options) as client:
        assert not _is_let_in(client)
        (tmp_path / "token").write_text(world.secrets["reader"])
        assert _eventually(lambda: _is_let_in(client))


@pytest.mark.parametrize("target", ["10.0.0.1:7301", "index.example:7301", "dns:///index.example:7301"])
def test_a_token_is_not_sent_in_clear_beyond_loopback_unless_told_so(target: str) -> None:
    with pytest.raises(InvalidArgument, match="beyond loopback"):
        IndexClient(target, options=ClientOptions(token="secret"))
    IndexClient(target, options=ClientOptions(token="secret", insecure=True)).close()
    IndexClient(target, options=ClientOptions(token="")).close()


@pytest.mark.parametrize("secret", ["two\nlines", "ünlike"])
def test_a_token_that_metadata_cannot_hold_is_refused_at_once(secret: str) -> None:
    with pytest.raises(InvalidArgument, match="printable ASCII"):
        IndexClient(options=ClientOptions(token=secret))


# The command line


def test_tokens_are_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "t.json")
    assert run(["token", "create", "--name", "a", "--pools", "reports*", "--pools", "b", "--file", file, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["role"], made["pools"], len(made["token"])) == ("read", ["reports*", "b"], 43)
    assert run(["token", "create", "--name", "b", "--role", "admin", "--days", "30", "--file", file]) == 0
    assert len(capsys.readouterr().out.strip()) == 43
    assert run(["token", "list", "--file", file]) == 0
    shown = capsys.readouterr().out
    assert "reports* b" in shown
    assert "admin" in shown
    assert run(["token", "revoke", "a", "--file", file]) == 0
    assert [one.name for one in read_tokens(Path(file))] == ["b"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "--name", "a"], "token 'a' exists already"),
        (["create", "--name", "c", "--pools", "x y"], "pools: 'x y'"),
        (["create", "--name", "-c"], "name: 1 to 128"),
        (["create", "--name", "c", "--days", "0"], "expires_at"),
        (["revoke", "c"], "no such token: 'c'"),
    ],
)
def test_a_wrong_command_says_what_is_wrong_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    put(tmp_path / "t.json", token("a")[1])
    before = (tmp_path / "t.json").read_bytes()
    assert run(["token", *arguments, "--file", str(tmp_path / "t.json")]) == 1
    assert said in capsys.readouterr().err
    assert (tmp_path / "t.json").read_bytes() == before


def _is_let_in(client: IndexClient) -> bool:
    try:
        client.get_pool("x")
    except Unauthenticated:
        return False
    return True


def _eventually(condition: Callable[[], bool]) -> bool:
    pause = threading.Event()
    return any(condition() or pause.wait(0.05) for _ in range(100))
