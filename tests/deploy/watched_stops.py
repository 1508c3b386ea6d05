"""Services that have all the calls they take, and that are stopped while one is under way."""

import contextlib
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from tests.deploy.watched_services import Watched

METHODS = {
    "scheduler": "/sealpool.v1.StreamService/Consider",
    "learner": "/sealpool.v1.LearnerService/Embed",
    "index_server": "/sealpool.v1.IndexService/Upsert",
}
"""A method of each service that waits for what the caller sends; those that call others first."""

CALLS_AT_ONCE = 16
REFUSED_WHILE_STOPPING = 300
"""Of the calls of a minute, more than any objective allows."""


def stop_in_the_middle_of_calls(watched: Watched) -> None:
    """Have each service refuse a call too many, then calls while it stops: enough that objectives burn."""
    for module, method in METHODS.items():
        service = watched.services[module]
        caller = Caller(service.address, method, watched.token)
        watching = f'sealpool_{module}_requests_in_progress{{method="{method.rpartition("/")[2]}"}}'
        with caller.held(CALLS_AT_ONCE):
            watched.prometheus.wait_for(f"{watching} >= {CALLS_AT_ONCE}")
            assert caller.call() == grpc.StatusCode.RESOURCE_EXHAUSTED
            watched.prometheus.wait_for(f'sealpool_{module}_refusals_total{{reason="client"}}')
        with ThreadPoolExecutor(1) as stopper:
            with caller.held(1):
                watched.prometheus.wait_for(f"{watching} == 1")
                stopped = stopper.submit(service.stop)
                while caller.call() != grpc.StatusCode.UNAVAILABLE:
                    assert not stopped.done()
                watched.prometheus.wait_for(f'sealpool_{module}_requests_total{{code="UNAVAILABLE"}}')
                for _ in range(REFUSED_WHILE_STOPPING):
                    caller.call()
                refused = f'sealpool_{module}_requests_total{{code="UNAVAILABLE"}} > {REFUSED_WHILE_STOPPING}'
                watched.prometheus.wait_for(refused)
            assert stopped.result(60) == 0
        caller.close()
    for module in METHODS:
        for burning in ("page", "ticket"):
            rule = f'sealpool:slo_burn_{burning}:ratio{{slo="{module}_availability"}}'
            watched.prometheus.wait_for(rule, timeout_s=60)


class Caller:
    """Calls a method that takes a stream, and sends nothing."""

    def __init__(self, address: str, method: str, token: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._call = self._channel.stream_stream(method, request_serializer=bytes, response_deserializer=bytes)
        self._metadata = [("authorization", f"Bearer {token}")]

    def call(self) -> grpc.StatusCode:
        """Call, and end the stream at once; return how the call ends."""
        with contextlib.suppress(grpc.RpcError):
            answers = self._call(iter(()), metadata=self._metadata, timeout=20)
            list(answers)
        return answers.code()

    @contextlib.contextmanager
    def held(self, count: int) -> Iterator[None]:
        """Keep so many calls under way within the block."""
        ends: queue.SimpleQueue[None] = queue.SimpleQueue()
        under_way = [self._call(iter(ends.get, None), metadata=self._metadata, timeout=60) for _ in range(count)]
        try:
            yield
        finally:
            for _ in under_way:
                ends.put(None)
            for one in under_way:
                with contextlib.suppress(grpc.RpcError):
                    list(one)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()
