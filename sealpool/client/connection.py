"""A channel, and calls on it that raise our errors and try again where that is right."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Self, TypeVar

import grpc
import grpc.experimental

from sealpool import errors
from sealpool.client.options import ClientOptions
from sealpool.client.places import ROUND_ROBIN, by_campaign
from sealpool.client.retrying import Breaks, Patience, was_broken_off
from sealpool.client.tokens import MetadataSender, token_source
from sealpool.runtime.addresses import is_loopback
from sealpool.runtime.request_ids import REQUEST_ID_KEY

T = TypeVar("T")

_CODES: dict[grpc.StatusCode, type[errors.SealpoolError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.CANCELLED: errors.Cancelled,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
}

_OF_SEVERAL = ("dns:", "ipv4:", "ipv6:")
"""Schemes of targets that may stand for several addresses, over which the calls are spread."""


class Connection:
    """A channel to one service. Safe to share between threads; a context manager.

    The three clients build on it.

    Raises
    ------
    InvalidArgument
        There is a token, and neither TLS nor loopback nor `insecure`; or one that metadata cannot hold.
    OSError
        A file that the options name cannot be read.
    """

    def __init__(self, target: str, *, options: ClientOptions | None = None) -> None:
        self.target = target
        self.options = options or ClientOptions()
        self._channel = _open(target, self.options)
        self._closed = False

    def close(self) -> None:
        """Close the channel; calls under way and later ones raise Cancelled."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, attempt: Callable[[float], T], *, idempotent: bool = True, long: bool = False) -> T:
        """Run `attempt(seconds left)`, again while it is UNAVAILABLE, or full for a while, if that does no harm.

        One that is not idempotent is tried again only where the service has not begun with it.

        Raises
        ------
        SealpoolError
            The leaf that fits the status.
        """
        budget_s = self.options.long_timeout_s if long else self.options.timeout_s
        return self._tried(attempt, budget_s, idempotent=idempotent)

    def _tried(self, attempt: Callable[[float], T], budget_s: float, *, idempotent: bool = True) -> T:
        patience = Patience(self.options.retry_for_s, budget_s)
        while True:
            try:
                return attempt(patience.begin())
            except grpc.RpcError as error:
                raised = to_error(error, self.target)
                pause_s = patience.pause_s(error, raised, idempotent=idempotent)
                if pause_s is None:
                    raise raised from error
            except ValueError as error:
                if self._closed:  # gRPC's word for a call on a closed channel
                    raise errors.Cancelled(f"the client of {self.target} is closed") from error
                raise
            time.sleep(pause_s)

    def stream(self, begin: Callable[[float], Iterator[T]]) -> Iterator[T]:
        """Yield a stream's messages. It is begun again while UNAVAILABLE, until its first message came.

        After that a break raises Unavailable.
        """
        messages, message = self._tried(_first_of(begin), self.options.long_timeout_s)
        if message is not None:
            yield message
            yield from self.stream_once(messages)

    def resumed(self, begin: Callable[[float], Iterator[T]], *, timeout_s: float | None = None) -> Iterator[T]:
        """Yield a stream's messages. It is begun again whenever it is UNAVAILABLE, also in the middle.

        Parameters
        ----------
        begin
            Begins after the last message that was yielded.
        timeout_s
            Of each beginning; None for `long_timeout_s`.
        """
        budget_s = self.options.long_timeout_s if timeout_s is None else timeout_s
        breaks = Breaks(self.options.retry_for_s)
        while True:
            messages, message = self._tried(_first_of(begin), budget_s)
            if message is None:
                return
            breaks.begin()
            yield message
            try:
                yield from self.stream_once(messages)
            except errors.Unavailable:
                pause_s = breaks.pause_s()
                if pause_s is None:
                    raise
                time.sleep(pause_s)
            else:
                return

    def stream_once(self, messages: Iterator[T]) -> Iterator[T]:
        """Yield the messages of a stream that has begun."""
        try:
            yield from messages
        except grpc.RpcError as error:
            raise to_error(error, self.target) from error


def _first_of(begin: Callable[[float], Iterator[T]]) -> Callable[[float], tuple[Iterator[T], T | None]]:
    def attempt(seconds: float) -> tuple[Iterator[T], T | None]:
        messages = begin(seconds)
        return messages, next(messages, None)

    return attempt


def to_error(error: grpc.RpcError, target: str) -> errors.SealpoolError:
    """Return the error that the service raised, rebuilt from the call's status."""
    code, message = error.code(), error.details() or ""
    cls = _CODES.get(code, errors.InternalError)
    if was_broken_off(error):
        cls, message = errors.Unavailable, f"{target} broke the call off"
    elif cls is errors.Unavailable:
        message = f"{target} is unavailable: {message}"
    elif cls is errors.DeadlineExceeded:
        message = f"{target} did not answer in time"
    metadata = {entry.key: str(entry.value) for entry in error.trailing_metadata() or ()}
    rebuilt = _rebuild(cls, message, field=metadata.get("sealpool-field", ""))
    rebuilt.request_id = metadata.get(REQUEST_ID_KEY, "")
    if isinstance(rebuilt, errors.ResourceExhausted | errors.Unavailable):
        rebuilt.retry_after_s = _seconds(metadata.get("sealpool-retry-after-seconds", ""))
    return rebuilt


def _rebuild(cls: type[errors.SealpoolError], message: str, *, field: str) -> errors.SealpoolError:
    # The leaves take apart what is in the message already, so they are made without their own __init__.
    rebuilt = cls.__new__(cls)
    errors.SealpoolError.__init__(rebuilt, message, field=field)
    return rebuilt


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None


def _open(target: str, options: ClientOptions) -> grpc.Channel:
    arguments: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.max_send_message_length", options.max_message_bytes),
        # gRPC waits up to two minutes between its own tries to connect; a restart takes seconds.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.keepalive_time_ms", 60_000),
        # What replaces a service may have another address, and gRPC asks for a name again after 30 s at the soonest.
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        # An answer in a stream is read by the thread that asks for it: 0.8 ms a call, and 1.1 ms without.
        (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),
    ]
    if target.startswith(_OF_SEVERAL):
        arguments.append(("grpc.service_config", by_campaign() if options.affinity else ROUND_ROBIN))
    token = token_source(options)
    if token is not None and options.ca_certificate is None and not options.insecure and not is_loopback(target):
        raise errors.InvalidArgument("token", f"{target} is beyond loopback: give ca_certificate, or insecure")
    channel = _bare_channel(target, options, arguments)
    if token is not None or options.request_id is not None:
        channel = grpc.intercept_channel(channel, MetadataSender(token=token, request_id=options.request_id))
    return options.tracer.channel(channel)


def _bare_channel(target: str, options: ClientOptions, arguments: list[tuple[str, int | str]]) -> grpc.Channel:
    if options.ca_certificate is None:
        return grpc.insecure_channel(target, options=arguments)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=options.ca_certificate.read_bytes(),
        private_key=options.client_key.read_bytes() if options.client_key else None,
        certificate_chain=options.client_certificate.read_bytes() if options.client_certificate else None,
    )
    return grpc.secure_channel(target, credentials, options=arguments)
