"""Health and reflection: they answer also when the service is full or stopping, and ask for no token."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from sealpool.runtime.calls import Handler
from sealpool.runtime.logs import Logger
from sealpool.runtime.stalls import StallWatch, Waiting

_CHECK = "/grpc.health.v1.Health/Check"
_WATCH = "/grpc.health.v1.Health/Watch"
_PREFIXES = ("/grpc.health.", "/grpc.reflection.")
_THREADS = 4
_PATIENCE_S = 10.0


class AsideInterceptor(grpc.ServerInterceptor):
    """Serve health and reflection from threads of their own, so that no number of calls keeps them waiting.

    Health checks have threads that reflection's streams cannot take. A client that sends nothing for 10 s is let go.
    """

    def __init__(self, *, log: Logger) -> None:
        self._checks = ThreadPoolExecutor(_THREADS, thread_name_prefix="health")
        self._rest = ThreadPoolExecutor(_THREADS, thread_name_prefix="aside")
        self._stalls = StallWatch(_PATIENCE_S, log=log)
        self._handlers: dict[str, Handler] = {}

    def start(self) -> None:
        """Begin to watch for clients that send nothing."""
        self._stalls.start()

    def stop(self) -> None:
        """End the threads, after the server has stopped. Asking twice does no harm."""
        self._stalls.stop()
        self._checks.shutdown(wait=False)
        self._rest.shutdown(wait=False)

    def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Handler | None]",
        details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Wrap the handlers of health and reflection, once."""
        wrapped = self._handlers.get(details.method)
        if wrapped is not None:
            return wrapped
        handler = continuation(details)
        if handler is None or not details.method.startswith(_PREFIXES):
            return handler
        wrapped = self._handlers[details.method] = self._wrap(details.method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        run = _Aside(
            method,
            handler,
            stalls=self._stalls,
            threads=self._checks if method == _CHECK else self._rest,
            non_blocking=method == _WATCH,
        )
        make: Callable[..., Handler] = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(run, handler.request_deserializer, handler.response_serializer)


class _Aside:
    """A method's behaviour that names the threads to run it in, in gRPC's own words for that.

    gRPC Python's health service is written for them: its Watch holds no thread.
    """

    def __init__(
        self, method: str, handler: Handler, *, stalls: StallWatch, threads: ThreadPoolExecutor, non_blocking: bool
    ) -> None:
        self.experimental_thread_pool = threads
        self.experimental_non_blocking = non_blocking
        self._method = method
        self._takes_stream = bool(handler.request_streaming)
        shapes = (handler.unary_unary, handler.unary_stream, handler.stream_stream)
        self._behaviour: Any = next(filter(None, shapes))
        self._stalls = stalls

    def __call__(self, messages: Iterator[Any], context: grpc.ServicerContext, *callback: Callable[..., None]) -> Any:
        """Answer one call."""
        waiting = Waiting(self._method, context.cancel)
        self._stalls.add(waiting)
        if not context.add_callback(lambda: self._stalls.discard(waiting)):
            self._stalls.discard(waiting)  # it has ended already
        requests = waiting.for_messages(messages)
        if self._takes_stream:
            return self._behaviour(requests, context)
        request = next(requests, None)
        if request is None:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "request: the call ended without its message")
        return self._behaviour(request, context, *callback)
