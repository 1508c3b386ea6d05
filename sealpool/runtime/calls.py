"""Calls over gRPC: let in and ended as every call is, and told their errors by the one table."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from sealpool.errors import InvalidArgument, SealpoolError
from sealpool.runtime.addresses import host_of
from sealpool.runtime.admitted import AdmittedCall, CalledMethod, CallRules
from sealpool.runtime.request_ids import REQUEST_ID_KEY
from sealpool.runtime.stalls import Waiting
from sealpool.runtime.status import details_of, status_of, trailing_metadata_of

_SHAPES = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


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


class _Method(CalledMethod):
    """One method of a gRPC service with what is around it."""

    def __init__(self, name: str, handler: Handler, rules: CallRules) -> None:
        super().__init__(name, rules)
        self._takes_stream = bool(handler.request_streaming)
        self._parse_message: Callable[[bytes], Any] = handler.request_deserializer or bytes
        self._behaviour: Any = next(filter(None, (getattr(handler, shape) for shape in _SHAPES)))

    def answer(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        call = _Call(self, context)
        try:
            with call:
                return self._behaviour(self._request(call, messages), context)
        except SealpoolError as error:
            call.abort(error)

    def answer_stream(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
        call = _Call(self, context)
        try:
            with call:
                answers = self._behaviour(self._request(call, messages), context)
                yield from call.waiting.for_reader(answers)
        except SealpoolError as error:
            call.abort(error)

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


class _Call(AdmittedCall):
    """One call over gRPC, watched for a client that neither sends nor reads.

    Errors are told outside the block, where gRPC's own exception for it is not taken for a fault of ours.
    """

    __slots__ = ("_context", "_stalls", "waiting")

    def __init__(self, method: _Method, context: grpc.ServicerContext) -> None:
        super().__init__(method, _Peer(context))
        self._context = context
        context.set_trailing_metadata(((REQUEST_ID_KEY, self.request_id),))
        self._stalls = method.rules.stalls
        self.waiting = Waiting(method.name, context.cancel)

    def __enter__(self) -> "_Call":
        super().__enter__()
        self._stalls.add(self.waiting)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._stalls.discard(self.waiting)
        super().__exit__(kind, error, trace)

    def abort(self, error: SealpoolError) -> None:
        """End the call with an error. Raises gRPC's own exception for that."""
        metadata = trailing_metadata_of(error, stopping=self._method.rules.admission.is_stopping)
        self._context.set_trailing_metadata(((REQUEST_ID_KEY, self.request_id), *metadata))
        self._context.abort(status_of(error), details_of(error))


class _Peer:
    """Who calls over gRPC."""

    __slots__ = ("_context", "is_active")

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context
        self.is_active = context.is_active

    def metadata(self) -> Any:
        return self._context.invocation_metadata()

    def host(self) -> str:
        return host_of(self._context.peer())
