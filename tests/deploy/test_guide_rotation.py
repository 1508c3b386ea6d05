"""What docs/operating.md says of changing tokens and certificates is done here, while clients call: none is refused."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from sealpool.client import ClientOptions, IndexClient
from sealpool.errors import SealpoolError, Unauthenticated, Unavailable
from tests.deploy.guide_campaign import Desk
from tests.deploy.guide_pages import Shell, blocks
from tests.support.processes import ServiceProcess, free_port

SEEN_WITHIN_S = 30.0


class Secrets:
    """A folder with tokens, certificates and keys, as the services are told of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(folder / "ca.crt")
        self.write_server()
        self.write_caller()
        self.shell = Shell({}, {}, folder=folder)
        for name, role in (("scheduler", "write"), ("learner", "admin"), ("me", "admin")):
            self.shell.run(f"sealpool token create --name {name} --role {role} --file tokens.json > {name}.token")
        (self._token, self._certificate, self._both, self._new) = blocks(
            "operating", "Changing tokens and certificates"
        )

    def path(self, name: str) -> Path:
        return self.folder / name

    def write_server(self, suffix: str = "") -> None:
        leaf = self.authority.issue_cert("127.0.0.1")
        leaf.private_key_pem.write_to_path(self.path(f"server.key{suffix}"))
        leaf.cert_chain_pems[0].write_to_path(self.path(f"server.crt{suffix}"))

    def write_caller(self) -> None:
        leaf = self.authority.issue_cert("caller@example.org")
        leaf.private_key_pem.write_to_path(self.path("caller.key"))
        leaf.cert_chain_pems[0].write_to_path(self.path("caller.crt"))

    def options(self) -> ClientOptions:
        """Return those of a client that starts now."""
        return ClientOptions(
            ca_certificate=self.path("ca.crt"),
            client_certificate=self.path("caller.crt"),
            client_key=self.path("caller.key"),
            token_file=self.path("me.token"),
            retry_for_s=10.0,
        )

    def change_token(self) -> None:
        self.shell.run(self._token)

    def change_server(self) -> None:
        self.write_server(".new")
        self.shell.run(self._certificate)

    def trust_both(self) -> None:
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(self.path("ca.crt.new"))
        self.shell.run(self._both)

    def trust_new(self) -> None:
        self.shell.run(self._new)


class Machine:
    """The three services, with TLS, certificates of clients and tokens."""

    def __init__(self, folder: Path, secrets: Secrets) -> None:
        name = secrets.path
        guarded = [
            *("--tls-certificate", name("server.crt"), "--tls-key", name("server.key")),
            *("--tls-client-ca", name("ca.crt"), "--tokens-file", name("tokens.json")),
        ]
        calling = [
            *("--services-ca", name("ca.crt"), "--services-certificate", name("caller.crt")),
            *("--services-key", name("caller.key")),
        ]

        def service(module: str, *flags: object) -> ServiceProcess:
            health = f"127.0.0.1:{free_port()}"
            return ServiceProcess(module, folder, *map(str, (*guarded, *flags)), health_address=health)

        # How full the disk of the machine is that runs the tests is no matter here.
        self.index = service("index_server", "--disk-throttle-share", "1", "--disk-refuse-share", "1")
        index = ("--index-server", self.index.address)
        self.learner = service("learner", *calling, *index, "--services-token-file", name("learner.token"))
        self.scheduler = service(
            *("scheduler", *calling, *index, "--services-token-file", name("scheduler.token")),
            *("--learner", self.learner.address),
        )

    def restart_callers(self) -> None:
        for service in (self.learner, self.scheduler):
            assert service.stop() == 0
            service.start()

    def kill(self) -> None:
        for service in (self.scheduler, self.learner, self.index):
            service.kill()


class Clients:
    """One client that stays connected, and one after the other that connects anew; what went wrong for them."""

    def __init__(self, target: str, secrets: Secrets) -> None:
        self._target = target
        self._secrets = secrets
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._call)
        self.starting = threading.Lock()
        self.errors: list[SealpoolError] = []
        self.calls = 0

    def __enter__(self) -> "Clients":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _call(self) -> None:
        with IndexClient(self._target, options=self._secrets.options()) as staying:
            while not self._stop.wait(0.05):
                with self.starting:
                    options = self._secrets.options()
                    starting = IndexClient(self._target, options=options)
                with contextlib.closing(starting):
                    for client in (staying, starting):
                        try:
                            client.list_pools()
                            self.calls += 1
                        except SealpoolError as error:
                            self.errors.append(error)


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    return Secrets(tmp_path / "secrets")


@pytest.fixture
def machine(tmp_path: Path, secrets: Secrets) -> Iterator[Machine]:
    machine = Machine(tmp_path, secrets)
    try:
        for service in (machine.index, machine.learner, machine.scheduler):
            service.start()
        yield machine
    finally:
        machine.kill()


def shown(address: str) -> str:
    """Return the certificate that a server shows to who connects now."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain, context.wrap_socket(plain) as secured:
        certificate = secured.getpeercert(binary_form=True)
    assert certificate is not None
    return ssl.DER_cert_to_PEM_cert(certificate).strip()


def wait_until_shown(machine: Machine, certificate: Path) -> None:
    wanted = certificate.read_text().strip()
    deadline = time.monotonic() + SEEN_WITHIN_S
    for service in (machine.index, machine.learner, machine.scheduler):
        while shown(service.address) != wanted:
            assert time.monotonic() < deadline, f"{service.module} shows another certificate"
            time.sleep(0.1)  # nothing tells who is not connected that a file was read


def test_tokens_certificates_and_their_authority_are_changed_and_no_call_fails(
    machine: Machine, secrets: Secrets, tmp_path: Path
) -> None:
    def desk() -> Desk:
        return Desk(machine.index.address, machine.scheduler.address, secrets.options())

    desk().begin()
    old_token, old_authority = secrets.path("scheduler.token").read_text().strip(), tmp_path / "old.crt"
    old_authority.write_bytes(secrets.path("ca.crt").read_bytes())
    with Clients(machine.index.address, secrets) as clients:
        secrets.change_token()
        assert secrets.path("scheduler.token").read_text().strip() != old_token
        assert len(desk().run_round()) == 10

        secrets.change_server()
        wait_until_shown(machine, secrets.path("server.crt"))

        secrets.trust_both()
        machine.restart_callers()
        secrets.change_server()
        with clients.starting:
            secrets.write_caller()
        machine.restart_callers()
        wait_until_shown(machine, secrets.path("server.crt"))
        secrets.trust_new()
        machine.restart_callers()
        assert len(desk().run_round()) == 10
    assert clients.errors == []
    assert clients.calls > 20
    check_refused(machine, secrets, old_token, old_authority)


def check_refused(machine: Machine, secrets: Secrets, old_token: str, old_authority: Path) -> None:
    """Nobody comes in with what was taken away."""
    ours = secrets.options()
    files = {name: getattr(ours, name) for name in ("ca_certificate", "client_certificate", "client_key")}
    revoked = ClientOptions(**files, token=old_token)
    with IndexClient(machine.index.address, options=revoked) as client, pytest.raises(Unauthenticated):
        client.list_pools()
    distrusting = ClientOptions(**{**files, "ca_certificate": old_authority}, token_file=ours.token_file, retry_for_s=0)
    with IndexClient(machine.index.address, options=distrusting) as client, pytest.raises(Unavailable):
        client.list_pools()
