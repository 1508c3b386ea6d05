"""The HTTP front's certificate, and the authority of its clients: those of the files as they are now."""

import json
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.unit.scheduler.world import World


class Front:
    """A scheduler's HTTP front with the certificate of an authority, in files that a test may replace."""

    def __init__(self, folder: Path, make_world: Callable[..., World]) -> None:
        self._make_world = make_world
        self.authority = trustme.CA()
        self.certificate, self.key, self.client_ca = (folder / f"{name}.pem" for name in ("server", "key", "clients"))
        self.issue(self.authority)

    def start(self, *, asks_clients: bool = False) -> None:
        """Serve; with `asks_clients`, only those who show a certificate of the authority in the file."""
        self.world = self._make_world(
            http_listen="127.0.0.1:0",
            tls_certificate=self.certificate,
            tls_key=self.key,
            tls_client_ca=self.client_ca if asks_clients else None,
        )

    def issue(self, authority: trustme.CA) -> None:
        """Put a certificate of this authority into the files, the key first."""
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(self.key)
        issued.cert_chain_pems[0].write_to_path(self.certificate)

    def client(self, authority: trustme.CA, *, shows: trustme.LeafCert | None = None) -> httpx.Client:
        """Connect anew, trusting this authority."""
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        if shows is not None:
            shows.configure_cert(trusting)
        address = self.world.scheduler.http_address
        return httpx.Client(base_url=f"https://{address}", verify=trusting, timeout=20)

    def answers(self, authority: trustme.CA, *, shows: trustme.LeafCert | None = None) -> bool:
        """Whether a client that connects anew is answered."""
        with self.client(authority, shows=shows) as client:
            try:
                return client.get("/v1/campaigns").is_success
            except httpx.TransportError:
                return False

    def logged(self, event: str) -> int:
        """How often the front said so."""
        lines = map(json.loads, self.world.log.getvalue().splitlines())
        return sum(line["event"].startswith(event) and line.get("front") == "http" for line in lines)


@pytest.fixture
def front(tmp_path: Path, make_world: Callable[..., World]) -> Front:
    return Front(tmp_path, make_world)


def wait_until(happened: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.05)  # the files are looked at once a second


def test_a_certificate_that_is_replaced_is_shown_over_http_to_the_next_client(front: Front) -> None:
    front.start()
    later = trustme.CA()
    with front.client(front.authority) as early:
        assert early.get("/v1/campaigns").is_success
        front.issue(later)
        wait_until(lambda: front.answers(later))
        assert early.get("/v1/campaigns").is_success  # over the connection that it has
    assert not front.answers(front.authority)
    assert front.logged("certificate read again") == 1


@pytest.mark.parametrize("fault", ["another key", "no PEM", "half of a PEM", "gone"])
def test_files_that_are_wrong_leave_the_fronts_certificate_as_it_was_and_are_logged_once(
    front: Front, fault: str
) -> None:
    front.start()
    key = front.key.read_bytes()
    other = trustme.CA().issue_cert("127.0.0.1").private_key_pem.bytes()
    wrong = {"another key": other, "no PEM": b"key", "half of a PEM": key[:100], "gone": b""}
    front.key.write_bytes(wrong[fault])
    if fault == "gone":
        front.key.unlink()
    wait_until(lambda: front.answers(front.authority) and front.logged("certificate not read") > 0)
    looked_at_again = time.monotonic() + 2.5
    while time.monotonic() < looked_at_again:
        assert front.answers(front.authority)
    assert front.logged("certificate not read") == 1
    front.key.write_bytes(key)
    wait_until(lambda: front.answers(front.authority) and front.logged("certificate read again") > 0)


def test_clients_of_another_authority_are_answered_once_the_front_has_its_file(front: Front) -> None:
    known, other = trustme.CA(), trustme.CA()
    ada, eve = known.issue_cert("ada@example.org"), other.issue_cert("eve@example.org")
    known.cert_pem.write_to_path(front.client_ca)
    front.start(asks_clients=True)
    assert not front.answers(front.authority)
    assert [front.answers(front.authority, shows=shown) for shown in (ada, eve)] == [True, False]
    other.cert_pem.write_to_path(front.client_ca)
    wait_until(lambda: front.answers(front.authority, shows=eve))
    assert not front.answers(front.authority, shows=ada)
    assert not front.answers(front.authority)


@pytest.mark.parametrize("fault", ["no PEM", "a password"])
def test_a_scheduler_whose_key_cannot_be_read_ends_with_one_line(front: Front, fault: str) -> None:
    key = load_pem_private_key(front.key.read_bytes(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    front.key.write_bytes(b"key" if fault == "no PEM" else encrypted)
    with pytest.raises(SystemExit, match="cannot listen on http_listen="):
        front.start()
