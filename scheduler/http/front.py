"""The front as a part of the scheduler's process: uvicorn on a thread, started and stopped with it."""

import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import uvicorn
from fastapi import APIRouter, FastAPI
from google.protobuf.descriptor import ServiceDescriptor

from scheduler.http.answering import Serving
from scheduler.http.app import build_app
from scheduler.http.connections import BoundedConnection
from scheduler.http.guarding import BrowserGuard
from scheduler.http.operations import EVENTS, ROUTES, operations_of
from scheduler.settings import SchedulerSettings
from sealpool.runtime.addresses import is_loopback
from sealpool.runtime.admitted import CallRules
from sealpool.runtime.certificates import CertificateFiles
from sealpool.runtime.logs import Logger, library_log

_FLUSH_S = 2
"""For answers that were given and are still being sent."""

_BACKLOG = 512


class HttpFront:
    """Serves the calls of some servicers over HTTP.

    It holds its address from the beginning, answers from `start`, and ends with `close`, after the calls under way.

    Parameters
    ----------
    services
        A servicer for each service, and the generated class it derives from.
    rules
        Permits, tokens and metrics: those of the calls over gRPC.
    is_ready
        What /readyz says.
    routers
        Of other rooms; see `build_app`.

    Raises
    ------
    SystemExit
        The address cannot be bound, or the certificate not read: said in one line.
    """

    def __init__(
        self,
        settings: SchedulerSettings,
        services: Mapping[ServiceDescriptor, tuple[object, type]],
        *,
        rules: CallRules,
        is_ready: Callable[[], bool],
        routers: Sequence[APIRouter],
        log: Logger,
    ) -> None:
        self._log = log
        self._threads = ThreadPoolExecutor(settings.max_concurrent_calls, thread_name_prefix="http")
        serving = Serving(
            rules=rules,
            guard=BrowserGuard(
                settings.http_cors_origins, only_loopback=rules.gate is None and is_loopback(settings.http_listen)
            ),
            threads=self._threads,
            max_body_bytes=settings.max_message_bytes,
            patience_s=settings.stalled_call_s,
            heartbeat_s=settings.http_heartbeat_s,
        )
        operations = list(operations_of(services, [*ROUTES, EVENTS]))
        self.app = build_app(
            operations, serving, is_ready=is_ready, cors_origins=settings.http_cors_origins, routers=routers
        )
        try:
            self._config = _config(self.app, settings, log)
            self._socket = _bound(settings.http_listen)
        except (OSError, OverflowError) as error:
            raise SystemExit(f"cannot listen on http_listen={settings.http_listen}: {error}") from error
        host = settings.http_listen.rpartition(":")[0]
        self.address = f"{host}:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(self._config)
        self._thread = threading.Thread(target=self._run, name="http front", daemon=True)
        self._logging: ExitStack | None = None

    def start(self) -> None:
        """Begin to answer."""
        self._logging = library_log("uvicorn.error", self._log)
        self._thread.start()
        self._log.info("listening over http", address=self.address, tls=bool(self._config.ssl))

    def close(self) -> None:
        """Answer what is being answered, and end. The calls must have been told to end before."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join()
        self._socket.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._logging is not None:
            self._logging.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])


def _config(app: FastAPI, settings: SchedulerSettings, log: Logger) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=BoundedConnection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # else a caller could say where it comes from
        server_header=False,
        timeout_graceful_shutdown=_FLUSH_S,
    )
    config.load()
    if settings.tls_certificate is not None and settings.tls_key is not None:
        files = CertificateFiles(
            settings.tls_certificate, settings.tls_key, settings.tls_client_ca, log=log.bind(front="http")
        )
        config.ssl = files.context()  # what uvicorn would make of the files stays as they are now
    return config


def _bound(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol must be named: asyncio sends at once (TCP_NODELAY) only on sockets that say they are TCP's, and an
    # answer of two writes took 45 ms longer without.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, int(port)))
        made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made
