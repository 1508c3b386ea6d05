"""TLS and mutual TLS between client and server."""

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
import trustme
from prometheus_client import CollectorRegistry

from sealpool.client import ClientOptions, IndexClient
from sealpool.errors import Unauthenticated, Unavailable
from sealpool.runtime.access import INDEX_ACCESS
from sealpool.runtime.logs import make_logger
from sealpool.runtime.server import ServiceServer
from sealpool.runtime.settings import ServiceSettings
from sealpool.runtime.tokens import Role, edited, make_token
from sealpool.v1 import index_pb2, index_pb2_grpc


class Servicer(index_pb2_grpc.IndexServiceServicer):
    """Has no pools."""

    def ListPools(
        self, request: index_pb2.ListPoolsRequest, context: grpc.ServicerContext
    ) -> index_pb2.ListPoolsResponse:
        return index_pb2.ListPoolsResponse()


@dataclass(frozen=True)
class Papers:
    """PEM files of an authority, a server and a client."""

    authority: Path
    certificate: Path
    key: Path
    client_certificate: Path
    client_key: Path


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    papers = Papers(*(folder / f"{name}.pem" for name in ("ca", "server", "server-key", "client", "client-key")))
    authority.cert_pem.write_to_path(papers.authority)
    for issued, certificate, key in (
        (authority.issue_cert("localhost"), papers.certificate, papers.key),
        (authority.issue_cert("ada@example.org"), papers.client_certificate, papers.client_key),
    ):
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
    return papers


@pytest.fixture(params=[False, True], ids=["tls", "mutual tls"])
def mutual(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def target(papers: Papers, mutual: bool) -> Iterator[str]:
    """A server that asks for a client certificate if it is mutual; where it listens."""
    server = serve(papers, tls_client_ca=papers.authority if mutual else None)
    yield server.address
    server.stop()


def serve(papers: Papers, *, log: io.StringIO | None = None, **more: Path | None) -> ServiceServer:
    settings = ServiceSettings.model_validate(
        {
            "listen": "localhost:0",
            "metrics_listen": "",
            "tls_certificate": papers.certificate,
            "tls_key": papers.key,
            **more,
        }
    )
    server = ServiceServer(
        settings,
        service="index_server",
        descriptors=[index_pb2.DESCRIPTOR.services_by_name["IndexService"]],
        registry=CollectorRegistry(),
        log=make_logger(settings, "index_server", stream=log or io.StringIO()),
        access=INDEX_ACCESS,
    )
    index_pb2_grpc.add_IndexServiceServicer_to_server(Servicer(), server.grpc_server)
    server.start()
    server.set_serving()
    return server


def answers(target: str, options: ClientOptions) -> bool:
    """Whether a new client is answered."""
    with IndexClient(target, options=options) as client:
        try:
            client.list_pools()
        except Unavailable:
            return False
        return True


def connects(target: str, authority: Path) -> bool:
    return answers(target, ClientOptions(retry_for_s=0, ca_certificate=authority))


def wait_until(happened: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.05)  # the files are looked at once a second


def test_a_client_that_knows_the_authority_and_shows_its_certificate_is_served(target: str, papers: Papers) -> None:
    options = ClientOptions(
        retry_for_s=0,
        ca_certificate=papers.authority,
        client_certificate=papers.client_certificate,
        client_key=papers.client_key,
    )
    with IndexClient(target, options=options) as client:
        assert client.list_pools() == []


def test_a_client_without_a_certificate_is_served_only_where_none_is_asked_for(
    target: str, papers: Papers, mutual: bool
) -> None:
    with IndexClient(target, options=ClientOptions(retry_for_s=0, ca_certificate=papers.authority)) as client:
        if mutual:
            with pytest.raises(Unavailable):
                client.list_pools()
        else:
            assert client.list_pools() == []


def test_a_client_of_another_authority_or_without_tls_is_not_served(target: str, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    for options in (ClientOptions(retry_for_s=0), ClientOptions(retry_for_s=0, ca_certificate=tmp_path / "other.pem")):
        with IndexClient(target, options=options) as client, pytest.raises(Unavailable):
            client.list_pools()


def test_a_token_travels_under_tls(papers: Papers, tmp_path: Path) -> None:
    secret, token = make_token("ada", role=Role.READ, pools=["*"], created=datetime.now(UTC))
    with edited(tmp_path / "tokens.json") as replace:
        replace([token])
    server = serve(papers, tokens_file=tmp_path / "tokens.json")
    with IndexClient(server.address, options=ClientOptions(ca_certificate=papers.authority, token=secret)) as client:
        assert client.list_pools() == []
    with (
        IndexClient(server.address, options=ClientOptions(ca_certificate=papers.authority)) as client,
        pytest.raises(Unauthenticated, match="no token"),
    ):
        client.list_pools()
    server.stop()


@pytest.fixture
def renewed(papers: Papers, tmp_path: Path) -> Papers:
    """Copies that a test may replace."""
    copies = Papers(*(tmp_path / path.name for path in vars(papers).values()))
    for path, copy in zip(vars(papers).values(), vars(copies).values(), strict=True):
        copy.write_bytes(path.read_bytes())
    return copies


def test_a_certificate_that_is_replaced_is_shown_to_the_next_client_without_a_restart(renewed: Papers) -> None:
    log = io.StringIO()
    server = serve(renewed, log=log)
    later = trustme.CA()
    issued = later.issue_cert("localhost")
    later.cert_pem.write_to_path(renewed.client_certificate)  # the authority's, under a name that is free
    with IndexClient(server.address, options=ClientOptions(ca_certificate=renewed.authority)) as early:
        assert early.list_pools() == []
        issued.private_key_pem.write_to_path(renewed.key)
        issued.cert_chain_pems[0].write_to_path(renewed.certificate)
        wait_until(lambda: connects(server.address, renewed.client_certificate))
        assert early.list_pools() == []  # over the connection that it has
    assert not connects(server.address, renewed.authority)
    assert log.getvalue().count("certificate read again") == 1
    server.stop()


@pytest.mark.parametrize("fault", ["another key", "no PEM", "half of a PEM", "gone"])
def test_files_that_are_wrong_leave_the_certificate_as_it_was_and_are_logged_once(renewed: Papers, fault: str) -> None:
    log = io.StringIO()
    server = serve(renewed, log=log)
    key = renewed.key.read_bytes()
    if fault == "gone":
        renewed.key.unlink()
    else:
        wrong = {"another key": renewed.client_key.read_bytes(), "no PEM": b"key", "half of a PEM": key[:100]}
        renewed.key.write_bytes(wrong[fault])
    wait_until(lambda: connects(server.address, renewed.authority) and "certificate not read" in log.getvalue())
    looked_at_again = time.monotonic() + 2.5
    while time.monotonic() < looked_at_again:
        assert connects(server.address, renewed.authority)
    assert log.getvalue().count("certificate not read") == 1
    renewed.key.write_bytes(key)
    wait_until(lambda: connects(server.address, renewed.authority) and "certificate read again" in log.getvalue())
    server.stop()


def test_clients_of_another_authority_are_served_once_its_file_is_there(renewed: Papers) -> None:
    server = serve(renewed, tls_client_ca=renewed.authority)
    other = trustme.CA()
    issued = other.issue_cert("eve@example.org")
    issued.cert_chain_pems[0].write_to_path(renewed.client_certificate)
    issued.private_key_pem.write_to_path(renewed.client_key)
    known = renewed.authority.read_bytes()
    renewed.authority.with_name("known.pem").write_bytes(known)
    options = ClientOptions(
        retry_for_s=0,
        ca_certificate=renewed.authority.with_name("known.pem"),
        client_certificate=renewed.client_certificate,
        client_key=renewed.client_key,
    )
    assert not answers(server.address, options)
    renewed.authority.write_bytes(known + other.cert_pem.bytes())
    wait_until(lambda: answers(server.address, options))
    server.stop()


@pytest.mark.parametrize("fault", ["another key", "no PEM"])
def test_a_start_with_files_that_are_wrong_says_so_in_one_line(renewed: Papers, fault: str) -> None:
    renewed.key.write_bytes(renewed.client_key.read_bytes() if fault == "another key" else b"key")
    with pytest.raises(SystemExit, match="cannot listen on listen=localhost:0"):
        serve(renewed)
