"""What is done around every call, whatever it comes over: a token, a permit, metrics, a log line, one kind of error."""

import time
import uuid
from dataclasses import dataclass
from typing import Any, Protocol

from sealpool.errors import InternalError, PermissionDenied, SealpoolError
from sealpool.runtime.admission import Admission, Gate, Refusal
from sealpool.runtime.callers import TOKEN_OF_CALL
from sealpool.runtime.logs import Logger
from sealpool.runtime.metrics import CallMetrics
from sealpool.runtime.request_ids import REQUEST_ID, request_id_in
from sealpool.runtime.stalls import StallWatch
from sealpool.runtime.status import status_of
from sealpool.runtime.tokens import Token
from sealpool.runtime.tracing import NO_TRACING, CallTracer


@dataclass(frozen=True, kw_only=True, slots=True)
class CallRules:
    """What all calls of a service share.

    `gate` is None where no token is asked for. `by_address` tells clients without a token apart by where they are:
    of no use on loopback, where all are at one place.
    """

    admission: Admission
    gate: Gate | None
    by_address: bool
    stalls: StallWatch
    metrics: CallMetrics
    log: Logger
    tracer: CallTracer = NO_TRACING


class Peer(Protocol):
    """Who calls, as the transport knows it."""

    def metadata(self) -> list[tuple[str, Any]]:
        """Return what came beside the request: names in lower case, and values."""
        ...

    def host(self) -> str:
        """Return where the caller is, without its port, as gRPC writes it: "ipv4:10.0.0.1"."""
        ...

    def is_active(self) -> bool:
        """Whether somebody still waits for the answer."""
        ...


class CalledMethod:
    """One method under the rules; its metrics are looked up once, which is a third of their cost."""

    def __init__(self, name: str, rules: CallRules) -> None:
        self.name = name
        self.rules = rules
        self.in_progress = rules.metrics.in_progress.labels(name)
        self.seconds = rules.metrics.seconds.labels(name)
        self._ok = rules.metrics.requests.labels(name, "OK")

    def count_end(self, code: str) -> None:
        """Count a call that ended."""
        (self._ok if code == "OK" else self.rules.metrics.requests.labels(self.name, code)).inc()


class AdmittedCall:
    """One call: entering lets it in, leaving gives the permit back, counts and logs.

    Entering raises what the call is refused with. Whatever is raised inside leaves as a SealpoolError: a fault of ours
    as InternalError with the id under which it is in the log; only where the caller left does it stay what it is.

    Attributes
    ----------
    request_id
        The caller's, or one made for it. It is that of the thread from here on.
    """

    __slots__ = ("_client", "_method", "_peer", "_started", "request_id", "token")

    def __init__(self, method: CalledMethod, peer: Peer) -> None:
        self._method = method
        self._peer = peer
        self._client = ""
        self.token: Token | None = None
        self.request_id = request_id_in(peer.metadata())
        REQUEST_ID.set(self.request_id)

    @property
    def asks_first_message(self) -> bool:
        """Whether a stream's first message says if the caller may make this call."""
        return self.token is not None and not self.token.is_for_all_pools

    def check_pools(self, request: Any) -> None:
        """Raise PermissionDenied, and count it, unless the caller's token is for the request's pools."""
        gate = self._method.rules.gate
        if gate is None or self.token is None:
            return
        try:
            gate.check_pools(self._method.name, self.token, request)
        except PermissionDenied:
            self._method.rules.metrics.refusals.labels("pool").inc()
            raise

    def __enter__(self) -> "AdmittedCall":
        refusal = self._admit()
        if refusal is not None:
            self._method.rules.metrics.refusals.labels(refusal.reason).inc()
            self._method.count_end(status_of(refusal.error).name)
            raise refusal.error
        self._method.in_progress.inc()
        TOKEN_OF_CALL.set(self.token)
        self._started = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        elapsed_s = time.perf_counter() - self._started
        method = self._method
        method.rules.admission.give_back(self._client)
        method.in_progress.dec()
        method.seconds.observe(elapsed_s)
        told = self._told(error)
        code = "OK" if error is None else "CANCELLED" if told is None else status_of(told).name
        method.count_end(code)
        method.rules.log.debug("call ended", method=method.name, code=code, seconds=round(elapsed_s, 6))
        if told is not None and told is not error:
            raise told from error

    def _admit(self) -> Refusal | None:
        rules = self._method.rules
        if rules.gate is not None:
            found = rules.gate.identify(self._method.name, self._peer.metadata())
            if isinstance(found, Refusal):
                return found
            self.token = found
            self._client = f"token {found.name}"
        elif rules.by_address:
            self._client = self._peer.host()
        return rules.admission.take(self._client)

    def _told(self, error: BaseException | None) -> SealpoolError | None:
        """Return what the caller is told; None where there is nothing to tell, or nobody."""
        if error is None or isinstance(error, SealpoolError):
            return error
        if isinstance(error, GeneratorExit) or not self._peer.is_active():
            return None  # the caller left: in the middle of our stream, or of its own
        fault = uuid.uuid4().hex[:12]
        self._method.rules.log.error("call failed", method=self._method.name, fault=fault, exc_info=error)
        return InternalError(f"internal fault {fault}; the service's log has it under this id")
