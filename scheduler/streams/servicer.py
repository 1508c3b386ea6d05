"""StreamService over gRPC: calls in, services out."""

# ruff: noqa: N802, D102, ARG002 - names and signatures are gRPC's, and stream.proto says what each call does.

from collections.abc import Iterator
from contextlib import closing

import grpc

from scheduler.streams.gathering import gathered
from scheduler.streams.service import StreamService
from scheduler.synthesis.service import SynthesisService
from sealpool.v1 import stream_pb2 as pb
from sealpool.v1 import stream_pb2_grpc

ITEMS_A_GROUP = 256
WAIT_S = 0.002
"""A transaction takes 5 ms or more: what arrives within two is worth waiting for, and nobody notices."""


class StreamServicer(stream_pb2_grpc.StreamServiceServicer):
    """Hands each call to the service that answers it. The contract is in stream.proto."""

    def __init__(self, *, streams: StreamService, synthesis: SynthesisService) -> None:
        self._streams = streams
        self._synthesis = synthesis

    def Consider(
        self, request_iterator: Iterator[pb.ConsiderRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ConsiderResponse]:
        with closing(gathered(request_iterator, most=ITEMS_A_GROUP, wait_s=WAIT_S)) as groups:
            for decisions in self._streams.consider(groups):
                for decision in decisions:
                    yield pb.ConsiderResponse(decision=decision)

    def ConsiderBatch(
        self, request: pb.ConsiderBatchRequest, context: grpc.ServicerContext
    ) -> pb.ConsiderBatchResponse:
        return self._streams.consider_batch(request)

    def GetStream(self, request: pb.GetStreamRequest, context: grpc.ServicerContext) -> pb.GetStreamResponse:
        return self._streams.get(request.campaign)

    def Synthesize(self, request: pb.SynthesizeRequest, context: grpc.ServicerContext) -> pb.SynthesizeResponse:
        return self._synthesis.synthesize(request)

    def ListSynthetic(
        self, request: pb.ListSyntheticRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ListSyntheticResponse]:
        for items in self._synthesis.list(request.campaign):
            yield pb.ListSyntheticResponse(items=items)
