"""What is done around every call: a token, a permit, the error table, metrics, one log line."""

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from sealpool.errors import InternalError, InvalidArgument, PermissionDenied, SealpoolError
from sealpool.runtime.addresses import host_of
from sealpool.runtime.admission import Admission, Gate, Refusal
from sealpool.runtime.callers import TOKEN_OF_CALL
from sealpool.runtime.logs import Logger
from sealpool.runtime.metrics import CallMetrics
from sealpool.runtime.stalls import StallWatch, Waiting
from sealpool.runtime.status import details_of, status_of, trailing_metadata_of
from sealpool.runtime.tokens import Token

_SHAPES = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True, kw_only=True, slots=True)
class CallRules:
    """What all calls of a server share.

    `gate` is None where no token is asked for. `by_address` tells clients without a token apart by where they are:
    of no use on loopback, where all are at one place.
    """

    admission: Admission
    gate: Gate | None
    by_address: bool
    stalls: StallWatch
    metrics: CallMetrics
    log: Logger


class CallInterceptor(grpc.ServerInterceptor):
    """Admit a call or refuse it, run it, and see to its end.

    Every method is served as one that takes a stream, which on the wire is the same. So a call is admitted before its
    message is read: gRPC itself holds a thread, without a permit, until a unary call's message is there, which a
    hostile client never sends. And messages are parsed here, in the call's own thread, not in the one that serves
    every call's events.
    """

    def __init__(self, rules: CallRules, *, services: frozenset[str]) -> None:
        self._rules = rules
        self._services = services
        self._handlers: dict[str, Handler] = {}

    def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Handler | None]",
        details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Wrap the handler of a method, once."""
        wrapped = self._handlers.get(details.method)
        if wrapped is not None:
            return wrapped
        handler = continuation(details)
        service, _, method = details.method.lstrip("/").partition("/")
        if handler is None or service not in self._services:
            return handler
        wrapped = self._handlers[details.method] = _wrap(_Method(method, handler, self._rules), handler)
        return wrapped


def _wrap(method: "_Method", handler: Handler) -> Handler:
    run: Callable[..., Any] = method.answer_stream if handler.response_streaming else method.answer
    make: Callable[..., Handler] = (
        grpc.stream_stream_rpc_method_handler if handler.response_streaming else grpc.stream_unary_rpc_method_handler
    )
    return make(run, None, handler.response_serializer)


class _Method:
    """One method with what is around it; its metrics are looked up once, which is a third of their cost."""

    def __init__(self, name: str, handler: Handler, rules: CallRules) -> None:
        self.name = name
        self.rules = rules
        self.in_progress = rules.metrics.in_progress.labels(name)
        self.seconds = rules.metrics.seconds.labels(name)
        self.ok = rules.metrics.requests.labels(name, "OK")
        self._takes_stream = bool(handler.request_streaming)
        self._parse_message: Callable[[bytes], Any] = handler.request_deserializer or bytes
        self._behaviour: Any = next(filter(None, (getattr(handler, shape) for shape in _SHAPES)))

    def answer(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        answer = None
        with _Call(self, context) as call:
            answer = self._behaviour(self._request(call, messages), context)
        call.abort_if_failed()
        return answer

    def answer_stream(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
        with _Call(self, context) as call:
            answers = self._behaviour(self._request(call, messages), context)
            yield from call.waiting.for_reader(answers)
        call.abort_if_failed()

    def count_end(self, code: str) -> None:
        """Count a call that ended."""
        (self.ok if code == "OK" else self.rules.metrics.requests.labels(self.name, code)).inc()

    def _request(self, call: "_Call", messages: Iterator[bytes]) -> Any:
        requests = map(self._parse, call.waiting.for_messages(messages))
        if self._takes_stream and not call.asks_first_message:
            return requests
        first = next(requests, None)
        if first is not None:
            call.check_pools(first)
        elif not self._takes_stream:
            raise InvalidArgument("request", "the call ended without its message")
        return chain([] if first is None else [first], requests) if self._takes_stream else first

    def _parse(self, message: bytes) -> Any:
        try:
            return self._parse_message(message)
        except DecodeError as error:
            raise InvalidArgument("request", f"a message that is none of {self.name}'s") from error


class _Call:
    """One call: entering lets it in, leaving gives the permit back, counts and logs.

    An error is kept and swallowed, so that `abort_if_failed` can end the call outside the block, where gRPC's own
    exception for it is not taken for a fault of ours.
    """

    __slots__ = ("_client", "_context", "_error", "_method", "_started", "_token", "waiting")

    def __init__(self, method: _Method, context: grpc.ServicerContext) -> None:
        self._method = method
        self._context = context
        self._error: SealpoolError | None = None
        self._token: Token | None = None
        self._client = ""
        self.waiting = Waiting(method.name, context.cancel)

    @property
    def asks_first_message(self) -> bool:
        """Whether a stream's first message says if the caller may make this call."""
        return self._token is not None and not self._token.is_for_all_pools

    def check_pools(self, request: Any) -> None:
        """Raise PermissionDenied, and count it, unless the caller's token is for the request's pools."""
        gate = self._method.rules.gate
        if gate is None or self._token is None:
            return
        try:
            gate.check_pools(self._method.name, self._token, request)
        except PermissionDenied:
            self._method.rules.metrics.refusals.labels("pool").inc()
            raise

    def __enter__(self) -> "_Call":
        refusal = self._admit()
        if refusal is not None:
            self._error = refusal.error
            self._method.rules.metrics.refusals.labels(refusal.reason).inc()
            self._method.count_end(status_of(refusal.error).name)
            self.abort_if_failed()
        self._method.in_progress.inc()
        self._method.rules.stalls.add(self.waiting)
        TOKEN_OF_CALL.set(self._token)
        self._started = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        elapsed_s = time.perf_counter() - self._started
        method = self._method
        method.rules.admission.give_back(self._client)
        method.rules.stalls.discard(self.waiting)
        method.in_progress.dec()
        method.seconds.observe(elapsed_s)
        code = self._settle(error)
        method.count_end(code)
        method.rules.log.debug("call ended", method=method.name, code=code, seconds=round(elapsed_s, 6))
        return self._error is not None

    def abort_if_failed(self) -> None:
        """End the call with the status of the error that was kept, if there is one."""
        if self._error is not None:
            self._context.set_trailing_metadata(trailing_metadata_of(self._error))
            self._context.abort(status_of(self._error), details_of(self._error))

    def _admit(self) -> Refusal | None:
        rules = self._method.rules
        if rules.gate is not None:
            found = rules.gate.identify(self._method.name, self._context.invocation_metadata())
            if isinstance(found, Refusal):
                return found
            self._token = found
            self._client = f"token {found.name}"
        elif rules.by_address:
            self._client = host_of(self._context.peer())
        return rules.admission.take(self._client)

    def _settle(self, error: BaseException | None) -> str:
        if error is None:
            return "OK"
        if isinstance(error, SealpoolError):
            self._error = error
        elif isinstance(error, GeneratorExit) or not self._context.is_active():
            return "CANCELLED"  # the caller left: in the middle of our stream, or of its own
        else:
            fault = uuid.uuid4().hex[:12]
            self._method.rules.log.error("call failed", method=self._method.name, fault=fault, exc_info=error)
            self._error = InternalError(f"internal fault {fault}; the service's log has it under this id")
        return status_of(self._error).name
