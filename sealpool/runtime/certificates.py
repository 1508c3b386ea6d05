"""A server's certificate, as its files have it now."""

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from sealpool.runtime.logs import Logger

_LOOK_EVERY_S = 1.0

_Identity = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """What the files held at one moment, for gRPC and for OpenSSL."""

    configuration: grpc.ServerCertificateConfiguration
    context: ssl.SSLContext


class CertificateFiles:
    """The files of a certificate, its key and the clients' authority. Safe to share between threads.

    They are looked at when a client connects, once a second at most, and read again where one is another. Files that
    cannot be read, or do not belong together, leave what was read before, which the log says once. Connections that
    are open stay as they are. One instance serves one server: by `credentials`, or by `context`.

    Raises
    ------
    OSError
        A file cannot be read, or (ssl.SSLError) is none of PEM, or the key is of another certificate.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path,
        client_ca: Path | None,
        *,
        log: Logger,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._path = str(certificate)
        self._log = log
        self._monotonic = monotonic
        self._looking = threading.Lock()
        self._look_at = monotonic() + _LOOK_EVERY_S
        self._seen: _Identity | None = self._identity()
        self._latest = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow the files."""
        return grpc.dynamic_ssl_server_credentials(
            self._latest.configuration,
            self._newer_configuration,  # type: ignore[arg-type]  # None, for no change, is what its documentation asks for
            require_client_authentication=self._client_ca is not None,
        )

    def context(self) -> ssl.SSLContext:
        """Return a context that follows the files. It asks clients for certificates if they have an authority."""
        # A context cannot take up another certificate at once with its key. It can hand a handshake to another context;
        # OpenSSL calls this also for clients that name no server.
        self._latest.context.sni_callback = self._hand_over
        return self._latest.context

    def _hand_over(self, handshake: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        newer = self._newer()
        if newer is not None:
            self._latest = newer
        handshake.context = self._latest.context

    def _newer_configuration(self) -> grpc.ServerCertificateConfiguration | None:
        # gRPC asks at each handshake, and takes None for no change.
        newer = self._newer()
        return None if newer is None else newer.configuration

    def _newer(self) -> _Read | None:
        if self._monotonic() < self._look_at or not self._looking.acquire(blocking=False):
            return None
        try:
            self._look_at = self._monotonic() + _LOOK_EVERY_S
            return self._read_if_another()
        finally:
            self._looking.release()

    def _read_if_another(self) -> _Read | None:
        try:
            seen = self._identity()
            if seen == self._seen:
                return None
            self._seen = seen
            read = self._read()
            if self._identity() != seen:  # replaced one after the other: what was read may not belong together
                self._seen = None
                return None
        except OSError as error:
            self._log.error("certificate not read: that of before is kept", path=self._path, error=str(error))
            return None
        self._log.info("certificate read again", path=self._path)
        return read

    def _identity(self) -> _Identity | None:
        paths = [path for path in (self._certificate, self._key, self._client_ca) if path is not None]
        try:
            return tuple((status.st_mtime_ns, status.st_ino, status.st_size) for status in map(Path.stat, paths))
        except FileNotFoundError:
            return None

    def _read(self) -> _Read:
        # gRPC would serve what it can of wrong files, or say nothing: OpenSSL tells what is wrong with them.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate, self._key, password=_no_password)
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        configuration = grpc.ssl_server_certificate_configuration(
            [(self._key.read_bytes(), self._certificate.read_bytes())],
            root_certificates=None if self._client_ca is None else self._client_ca.read_bytes(),
        )
        return _Read(configuration=configuration, context=context)


def _no_password() -> str:
    raise ssl.SSLError("the key is encrypted")
