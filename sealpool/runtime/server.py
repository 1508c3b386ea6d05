"""A gRPC server with health, reflection, metrics and a staged stop."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from types import FrameType
from wsgiref.simple_server import WSGIServer

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry, start_http_server

from sealpool.errors import InvalidArgument
from sealpool.runtime.access import Access, check_complete
from sealpool.runtime.addresses import is_loopback
from sealpool.runtime.admission import Admission, Gate
from sealpool.runtime.admitted import CallRules
from sealpool.runtime.aside import AsideInterceptor
from sealpool.runtime.calls import CallInterceptor
from sealpool.runtime.certificates import CertificateFiles
from sealpool.runtime.health import Health
from sealpool.runtime.logs import Logger
from sealpool.runtime.metrics import CallMetrics, ProcessMetrics
from sealpool.runtime.settings import ServiceSettings
from sealpool.runtime.stalls import StallWatch
from sealpool.runtime.token_book import TokenBook
from sealpool.runtime.tracing import NO_TRACING, CallTracer

_SPARE_THREADS = 8
"""Beyond the permits: for telling a caller that there is none left."""

_SIGNAL_CHECK_S = 0.2

_FLUSH_S = 2.0
"""For answers that were given and are still being sent, and for calls that were cancelled to end."""


class ServiceServer:
    """One service's gRPC server.

    Add servicers to `grpc_server`, then `start`, then `set_serving` once ready, then `wait_until_stopped`.

    Stopping is staged, and asking twice does no harm: health says NOT_SERVING and new calls are refused with
    UNAVAILABLE; the `on_drain` callbacks run; calls under way get `grace_s` to end, and are cancelled after that; the
    `on_close` callbacks run, last added first.

    Parameters
    ----------
    settings
        Where to listen, and the limits.
    service
        "index_server", "learner" or "scheduler": prefix of the metrics.
    descriptors
        The gRPC services served, for reflection and health.
    access
        What each method asks of a token. Where it is not given, the settings may name no tokens_file.
    tracer
        Makes spans of calls. The server closes it last.

    Attributes
    ----------
    rules
        What each call goes through: permits, tokens and metrics. Another front of the same service shares them.

    Raises
    ------
    ValueError
        `access` leaves a method out, or names another; or there is none, and a tokens_file.
    SystemExit
        The tokens_file cannot be read, or is none: said in one line.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        service: str,
        descriptors: Sequence[ServiceDescriptor],
        registry: CollectorRegistry,
        log: Logger,
        access: Mapping[str, Access] | None = None,
        tracer: CallTracer = NO_TRACING,
    ) -> None:
        if access is not None:
            check_complete(access, descriptors)
        self._settings = settings
        self._registry = registry
        self._log = log
        self._names = [descriptor.full_name for descriptor in descriptors]
        self._admission = Admission(settings.max_concurrent_calls, max_calls_per_client=settings.calls_per_client)
        self._stalls = StallWatch(settings.stalled_call_s, log=log)
        self._aside = AsideInterceptor(log=log)
        ProcessMetrics(service, registry)
        self.rules = CallRules(
            admission=self._admission,
            gate=_gate(settings, access, log),
            by_address=not is_loopback(settings.listen),
            stalls=self._stalls,
            metrics=CallMetrics(service, registry),
            log=log,
            tracer=tracer,
        )
        services = frozenset(self._names)
        self.grpc_server = grpc.server(
            ThreadPoolExecutor(settings.max_concurrent_calls + _SPARE_THREADS, thread_name_prefix="call"),
            # The first is the outermost: a call that is refused is in its trace too.
            interceptors=[*tracer.interceptors(services), CallInterceptor(self.rules, services=services), self._aside],
            options=_channel_arguments(settings),
        )
        self._health = Health(self._names, log=log)
        self._drain_callbacks: list[Callable[[], None]] = []
        self._close_callbacks: list[Callable[[], None]] = []
        self._serving = False
        self._stop_asked = threading.Event()
        self._stop_reasons: SimpleQueue[str] = SimpleQueue()
        self._stopping = threading.Lock()
        self._stopped = False
        self._metrics_server: tuple[WSGIServer, threading.Thread] | None = None
        self.address = ""
        self.metrics_address = ""
        self.health_address = ""

    @property
    def is_serving(self) -> bool:
        """Whether health says SERVING."""
        return self._serving and not self._stop_asked.is_set()

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Call `callback` when stopping begins, before calls under way have ended."""
        self._drain_callbacks.append(callback)

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call `callback` after the last call has ended."""
        self._close_callbacks.append(callback)

    def start(self) -> None:
        """Bind and answer; health says NOT_SERVING until `set_serving`.

        Raises
        ------
        SystemExit
            An address cannot be bound: said in one line. Everything is closed by then, as after `stop`.
        """
        self._health.add_to(self.grpc_server)
        reflection.enable_server_reflection(
            [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME], self.grpc_server
        )
        self.health_address = self._bound("health_listen", self._start_health)
        self.address = self._bound("listen", self._bind)
        self.metrics_address = self._bound("metrics_listen", self._start_metrics)
        self._stalls.start()
        self._aside.start()
        self.grpc_server.start()
        if self._settings.tokens_file and not (self._settings.tls_certificate or is_loopback(self._settings.listen)):
            self._log.warning("tokens travel in clear: anyone on the way can take them", address=self.address)
        self._log.info(
            "listening",
            address=self.address,
            metrics_address=self.metrics_address,
            **({"health_address": self.health_address} if self.health_address else {}),
        )

    def set_serving(self) -> None:
        """Say SERVING to health checks."""
        if not self._stop_asked.is_set():
            self._serving = True
            self._health.set_serving()
            self._log.info("serving", address=self.address)

    def wait_until_stopped(self) -> None:
        """Return after SIGTERM, SIGINT or `stop`, when everything is closed. Call from the main thread."""

        def ask(signal_number: int, _frame: FrameType | None) -> None:
            # No lock may be taken here: what the signal interrupted may hold that of the log or of an Event, as may
            # the handler of an earlier signal. SimpleQueue.put is made for this.
            self._stop_reasons.put(signal.Signals(signal_number).name)

        previous = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._log.info("stop asked", reason=self._next_stop_reason())
            self.stop()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _next_stop_reason(self) -> str:
        while True:
            # A bare get() is not woken by a signal that the kernel gave to another thread.
            with contextlib.suppress(Empty):
                return self._stop_reasons.get(timeout=_SIGNAL_CHECK_S)

    def stop(self) -> None:
        """Stop in stages and return when everything is closed, also if another thread has begun to."""
        with self._stopping:
            if not self._stopped:
                self._stop_in_stages()
                self._stopped = True

    def _stop_in_stages(self) -> None:
        self._stop_asked.set()
        self._stop_reasons.put("stop()")
        self._health.set_not_serving()
        self._admission.stop()
        for callback in self._drain_callbacks:
            callback()
        ended = self._admission.wait_until_unused(self._settings.grace_s)
        # Health watches never end by themselves. And gRPC never ends a call that its client cancelled before it had a
        # name (seen with 1.85), and does not say that it stopped until all have ended: not to be waited for.
        self.grpc_server.stop(min(_FLUSH_S, self._settings.grace_s) if ended else 0).wait(2 * _FLUSH_S)
        self._stalls.stop()
        self._aside.stop()
        for callback in reversed(self._close_callbacks):
            callback()
        if self._metrics_server is not None:
            server, thread = self._metrics_server
            server.shutdown()
            server.server_close()
            thread.join()
        self._health.close()
        self.rules.tracer.close()
        self._log.info("stopped")

    def _bound(self, setting: str, bind: Callable[[], str]) -> str:
        try:
            return bind()
        except (RuntimeError, OSError) as error:
            self.stop()  # a thread of the service that runs already would keep the process
            raise SystemExit(f"cannot listen on {setting}={getattr(self._settings, setting)}: {error}") from error

    def _bind(self) -> str:
        listen = self._settings.listen
        if self._settings.tls_certificate is None or self._settings.tls_key is None:
            port = self.grpc_server.add_insecure_port(listen)
        else:
            port = self.grpc_server.add_secure_port(listen, self._credentials())
        return listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"

    def _credentials(self) -> grpc.ServerCredentials:
        settings = self._settings
        if settings.tls_certificate is None or settings.tls_key is None:
            raise AssertionError("TLS without a certificate")
        files = CertificateFiles(settings.tls_certificate, settings.tls_key, settings.tls_client_ca, log=self._log)
        return files.credentials()

    def _start_health(self) -> str:
        return self._health.listen(self._settings.health_listen) if self._settings.health_listen else ""

    def _start_metrics(self) -> str:
        if not self._settings.metrics_listen:
            return ""
        host, _, port = self._settings.metrics_listen.rpartition(":")
        self._metrics_server = start_http_server(int(port), addr=host.strip("[]"), registry=self._registry)
        return f"{host}:{self._metrics_server[0].server_port}"


def _channel_arguments(settings: ServiceSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),  # answers are chunked by the services themselves
        ("grpc.so_reuseport", 0),  # a second server on the port is a mistake, not a helper
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        # More than the permits, so that one call too many is refused at once and does not wait at the client.
        ("grpc.max_concurrent_streams", 2 * settings.max_concurrent_calls + 16),
        ("grpc.max_connection_idle_ms", 1_800_000),  # clients connect again by themselves
        # gRPC adds up to a tenth either way, and lets calls under way go on for as long as they take.
        *([("grpc.max_connection_age_ms", round(1000 * settings.connection_age_s))] * bool(settings.connection_age_s)),
    ]


def _gate(settings: ServiceSettings, access: Mapping[str, Access] | None, log: Logger) -> Gate | None:
    if settings.tokens_file is None:
        return None
    if access is None:
        raise ValueError("tokens_file without access: nothing says what a token allows")
    try:
        book = TokenBook(settings.tokens_file, log=log, monotonic=time.monotonic, now=lambda: datetime.now(UTC))
    except (OSError, InvalidArgument) as error:
        raise SystemExit(f"tokens_file={settings.tokens_file}: {error}") from error
    return Gate(book, access)
