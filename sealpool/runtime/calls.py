"""What is done around every call: a permit, the error table, metrics, one log line."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from sealpool.errors import InternalError, ResourceExhausted, SealpoolError, Unavailable
from sealpool.runtime.logs import Logger
from sealpool.runtime.metrics import CallMetrics
from sealpool.runtime.status import status_of, trailing_metadata_of

_UNGUARDED = ("/grpc.health.", "/grpc.reflection.")
"""Health and reflection answer also when the service is full or stopping."""


_SHAPES = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Admission:
    """Permits for calls: taken before any work, refused at once when there is none.

    Parameters
    ----------
    max_concurrent_calls
        How many there are; one more call is refused with RESOURCE_EXHAUSTED.
    """

    def __init__(self, max_concurrent_calls: int) -> None:
        self._limit = max_concurrent_calls
        self._permits = threading.Semaphore(max_concurrent_calls)
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Refuse every call from now on with UNAVAILABLE. Those under way go on."""
        self._stopping.set()

    def take(self) -> tuple[str, SealpoolError] | None:
        """Take a permit, or return why there is none: the reason, for the metric, and the error."""
        if self._stopping.is_set():
            return "stopping", Unavailable("the service is stopping")
        if not self._permits.acquire(blocking=False):
            return "concurrency", ResourceExhausted(
                "one more call at once", limit=self._limit, setting="max_concurrent_calls"
            )
        return None

    def give_back(self) -> None:
        """Return a permit."""
        self._permits.release()


class CallInterceptor(grpc.ServerInterceptor):
    """Admit a call or refuse it, run it, and see to its end."""

    def __init__(self, *, admission: Admission, metrics: CallMetrics, log: Logger) -> None:
        self._admission = admission
        self._metrics = metrics
        self._log = log

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], "grpc.RpcMethodHandler[Any, Any] | None"],
        details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Wrap the handler of a call."""
        handler = continuation(details)
        if handler is None or details.method.startswith(_UNGUARDED):
            return handler
        method = details.method.rpartition("/")[2]
        behaviour: Any = next(filter(None, (getattr(handler, shape) for shape in _SHAPES)))
        wrap: Callable[[str, Any], Any] = self._streamed if handler.response_streaming else self._single
        make: Callable[..., grpc.RpcMethodHandler[Any, Any]] = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[handler.request_streaming, handler.response_streaming]
        return make(wrap(method, behaviour), handler.request_deserializer, handler.response_serializer)

    def _single(self, method: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        def run(request: Any, context: grpc.ServicerContext) -> Any:
            answer = None
            with self._call(method, context) as call:
                answer = behaviour(request, context)
            call.abort_if_failed()
            return answer

        return run

    def _streamed(self, method: str, behaviour: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def run(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with self._call(method, context) as call:
                yield from behaviour(request, context)
            call.abort_if_failed()

        return run

    def _call(self, method: str, context: grpc.ServicerContext) -> "_Call":
        return _Call(method, context, admission=self._admission, metrics=self._metrics, log=self._log)


class _Call:
    """One call: entering takes the permit, leaving gives it back, counts and logs.

    An error is kept and swallowed, so that `abort_if_failed` can end the call outside the block, where gRPC's own
    exception for it is not taken for a fault of ours.
    """

    def __init__(
        self, method: str, context: grpc.ServicerContext, *, admission: Admission, metrics: CallMetrics, log: Logger
    ) -> None:
        self._method = method
        self._context = context
        self._admission = admission
        self._metrics = metrics
        self._log = log
        self._error: SealpoolError | None = None
        self._started = 0.0

    def __enter__(self) -> "_Call":
        refusal = self._admission.take()
        if refusal is not None:
            reason, self._error = refusal
            self._metrics.refusals.labels(reason).inc()
            self._metrics.requests.labels(self._method, status_of(self._error).name).inc()
            self.abort_if_failed()
        self._metrics.in_progress.labels(self._method).inc()
        self._started = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        elapsed_s = time.perf_counter() - self._started
        self._admission.give_back()
        self._metrics.in_progress.labels(self._method).dec()
        self._metrics.seconds.labels(self._method).observe(elapsed_s)
        code = self._settle(error)
        self._metrics.requests.labels(self._method, code).inc()
        self._log.debug("call ended", method=self._method, code=code, seconds=round(elapsed_s, 6))
        return self._error is not None

    def _settle(self, error: BaseException | None) -> str:
        if error is None:
            return "OK"
        if isinstance(error, SealpoolError):
            self._error = error
        elif isinstance(error, GeneratorExit) or not self._context.is_active():
            return "CANCELLED"  # the caller left: in the middle of our stream, or of its own
        else:
            fault = uuid.uuid4().hex[:12]
            self._log.error("call failed", method=self._method, fault=fault, exc_info=error)
            self._error = InternalError(f"internal fault {fault}; the service's log has it under this id")
        return status_of(self._error).name

    def abort_if_failed(self) -> None:
        """End the call with the status of the error that was kept, if there is one."""
        if self._error is not None:
            self._context.set_trailing_metadata(trailing_metadata_of(self._error))
            self._context.abort(status_of(self._error), self._error.message)
