"""Every call of IndexService with changed requests, against one server process.

The calls are those of the service's descriptor, so a new one is fuzzed as soon as it is declared.
SEALPOOL_FUZZ_REQUESTS says how many requests, SEALPOOL_FUZZ_SEED which; a failure prints the request as text.
"""

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
from google.protobuf import text_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from sealpool.v1 import index_pb2
from tests.fuzz.index_server.victim import (
    CONTROL,
    LIMITS,
    POOL,
    SPARE,
    control_state,
    make_pools,
    templates,
    wrong_pools,
)
from tests.support.index_at_hand import snapshots_beside, stub_of
from tests.support.mutate import Templates, mutate, mutate_bytes, mutate_stream
from tests.support.processes import ServiceProcess

REQUESTS = int(os.environ.get("SEALPOOL_FUZZ_REQUESTS", "1500"))
SEED = int(os.environ.get("SEALPOOL_FUZZ_SEED", "1"))
DEADLINE_S = 20.0
METHODS = index_pb2.DESCRIPTOR.services_by_name["IndexService"].methods

ALLOWED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,  # while a pool is made or deleted for a caller who left; seldom, as is checked
}


@dataclass(frozen=True)
class Fuzzed:
    """A drawn call: its messages as bytes, and whether the caller leaves in the middle."""

    method: MethodDescriptor
    requests: list[bytes]
    leaves: bool

    def __str__(self) -> str:
        return f"{self.method.name} leaves={self.leaves}\n" + "\n---\n".join(map(self._shown, self.requests))

    def _shown(self, content: bytes) -> str:
        try:
            message = GetMessageClass(self.method.input_type).FromString(content)
        except DecodeError:
            return repr(content[:2000])
        return text_format.MessageToString(message)[:4000]


def drawn(method: MethodDescriptor, valid: Templates, chance: random.Random) -> Fuzzed:
    """Draw a call: mostly with one to four changes, sometimes with none."""
    streamed = method.client_streaming
    requests = [valid.draw(method.input_type) for _ in range(chance.choice([1, 2, 4]) if streamed else 1)]
    for _ in range(chance.choice([0, 1, 1, 1, 2, 4])):
        mutate(chance.choice(requests), valid, chance)
    if streamed:
        requests = mutate_stream(requests, chance)
    contents = [request.SerializeToString() for request in requests]
    if chance.random() < 0.15:
        contents = [mutate_bytes(content, chance) for content in contents]
    return Fuzzed(method, contents, chance.random() < 0.05)


def outcome(channel: grpc.Channel, call: Fuzzed) -> grpc.RpcError | None:
    """Make a call and return how it failed, if it did."""
    method = call.method
    streamed = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
    invoke: Any = getattr(channel, "_".join(streamed))(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=None,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    argument: Iterator[bytes] | bytes = iter(call.requests) if method.client_streaming else call.requests[0]
    try:
        if method.server_streaming:
            answers = invoke(argument, timeout=DEADLINE_S)
            for _ in answers:
                if call.leaves:
                    answers.cancel()
                    return None
        elif call.leaves:
            invoke.future(argument, timeout=DEADLINE_S).cancel()
        else:
            invoke(argument, timeout=DEADLINE_S)
    except grpc.RpcError as error:
        return error
    return None


def is_fault(error: grpc.RpcError | None) -> bool:
    if error is None:
        return False
    oversized = "metadata size" in str(error.details())  # a message too long for gRPC hides behind a status of ours
    return oversized or error.code() not in ALLOWED


@pytest.fixture
def server(tmp_path):
    limits = [part for name, value in LIMITS.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    limits += ["--snapshot-roots", json.dumps([str(snapshots_beside(tmp_path / "index_server"))])]
    server = ServiceProcess("index_server", tmp_path, "--log-level", "error", *limits)
    server.start()
    yield server
    server.kill()


def test_no_request_brings_the_index_server_down_or_off_its_course(server, tmp_path):
    chance = random.Random(SEED)
    valid = templates(chance, snapshots_beside(tmp_path / "index_server"))
    statuses: Counter[str] = Counter()
    with grpc.insecure_channel(server.address) as channel:
        stub = stub_of(channel)
        make_pools(stub, [CONTROL, POOL, SPARE])
        before = control_state(stub)
        for number in range(REQUESTS):
            call = drawn(METHODS[number % len(METHODS)], valid, chance)
            if number > REQUESTS - 20:  # what goes on for callers who left is to end before the last look
                call = replace(call, leaves=False)
            error = outcome(channel, call)
            statuses[error.code().name if error else "OK"] += 1
            if is_fault(error) or server.exit_code is not None:
                ended = "" if server.exit_code is None else f"the server ended with {server.exit_code}: "
                log = server.log.read_text()[-4000:]
                pytest.fail(f"{ended}seed {SEED}, request {number}: {error}\n{call}\n{log}", pytrace=False)
            if number % 50 == 0:
                make_pools(stub, [POOL, SPARE])
        assert control_state(stub) == before
        assert wrong_pools(stub) == []
    print(f"{REQUESTS} requests, seed {SEED}: {dict(statuses.most_common())}")  # noqa: T201 - shown with -s
    assert statuses["OK"] > REQUESTS / 10  # requests that are all refused at the door try nothing
    assert statuses["UNAVAILABLE"] < REQUESTS / 50
    assert server.stop() == 0
