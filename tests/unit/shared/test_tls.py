"""TLS and mutual TLS between client and server."""

import io
from collections.abc import Iterator
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


def serve(papers: Papers, **more: Path | None) -> ServiceServer:
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
        log=make_logger(settings, "index_server", stream=io.StringIO()),
        access=INDEX_ACCESS,
    )
    index_pb2_grpc.add_IndexServiceServicer_to_server(Servicer(), server.grpc_server)
    server.start()
    server.set_serving()
    return server


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
