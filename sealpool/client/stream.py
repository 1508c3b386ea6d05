"""Client of the scheduler's streams: items that come one by one, and items that are made."""

import json
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sealpool.client.connection import Connection
from sealpool.client.options import ClientOptions
from sealpool.client.resuming import Unanswered
from sealpool.matrix import to_matrix
from sealpool.v1 import learner_pb2, stream_pb2, stream_pb2_grpc


class StreamClient(Connection):
    """Stream-based selective sampling and membership query synthesis, over gRPC."""

    def __init__(self, target: str = "127.0.0.1:7303", *, options: ClientOptions | None = None) -> None:
        super().__init__(target, options=options)
        self._stub = stream_pb2_grpc.StreamServiceStub(self._channel)

    def consider(self, campaign: str, items: Iterable[stream_pb2.StreamItem]) -> Iterator[stream_pb2.StreamDecision]:
        """Send items as they come, and yield what is decided of each, in order.

        Items are taken ahead of the decisions, in another thread: an error that `items` raises ends the call as
        InternalError. It has no deadline. Where the scheduler restarts in the middle, what has no decision yet is sent
        again; an item that had been decided of after all comes with that decision, and `repeated_id`.
        """
        unanswered = Unanswered(items)

        def requests(sent: Iterator[stream_pb2.StreamItem]) -> Iterator[stream_pb2.ConsiderRequest]:
            name = campaign
            for item in sent:
                yield stream_pb2.ConsiderRequest(campaign=name, item=item)
                name = ""

        for answer in self.resumed(lambda _: self._stub.Consider(requests(unanswered.send())), timeout_s=math.inf):
            unanswered.answer(1)
            yield answer.decision

    def consider_batch(
        self, campaign: str, items: Sequence[stream_pb2.StreamItem], *, request_id: str | None = None
    ) -> list[stream_pb2.StreamDecision]:
        """Have several items decided of: all of them or none."""
        request = stream_pb2.ConsiderBatchRequest(campaign=campaign, items=items, request_id=_or_new(request_id))
        return list(self.call(lambda s: self._stub.ConsiderBatch(request, timeout=s), long=True).decisions)

    def get_stream(self, campaign: str) -> stream_pb2.GetStreamResponse:
        """Return how a campaign's stream stands."""
        request = stream_pb2.GetStreamRequest(campaign=campaign)
        return self.call(lambda s: self._stub.GetStream(request, timeout=s))

    def synthesize(
        self,
        campaign: str,
        method: stream_pb2.SynthesisMethod.ValueType,
        count: int,
        *,
        keep_label: bool = False,
        classes: Sequence[str] = (),
        encoder: learner_pb2.EmbedHeader | None = None,
        endpoint: str = "",
        model: str = "",
        request_id: str | None = None,
    ) -> list[stream_pb2.SyntheticItem]:
        """Make items from labelled ones, or find real ones by made points, and have them asked about."""
        request = stream_pb2.SynthesizeRequest(
            campaign=campaign,
            method=method,
            count=count,
            keep_label=keep_label,
            classes=classes,
            encoder=encoder,
            endpoint=endpoint,
            model=model,
            request_id=_or_new(request_id),
        )
        return list(self.call(lambda s: self._stub.Synthesize(request, timeout=s), long=True).items)

    def list_synthetic(self, campaign: str) -> Iterator[stream_pb2.SyntheticItem]:
        """Yield the items that a campaign made, or found by synthesis.

        Unavailable where the scheduler restarts in the middle.
        """
        request = stream_pb2.ListSyntheticRequest(campaign=campaign)
        for answer in self.stream(lambda s: self._stub.ListSynthetic(request, timeout=s)):
            yield from answer.items


def stream_item(
    item_id: str,
    *,
    text: str = "",
    vector: NDArray[np.floating] | None = None,
    uri: str = "",
    metadata: Mapping[str, object] | None = None,
) -> stream_pb2.StreamItem:
    """Return an item of a stream; `vector` (d,) may be left out where the campaign's stream has an encoder."""
    return stream_pb2.StreamItem(
        id=item_id,
        text=text,
        uri=uri,
        vector=None if vector is None else to_matrix(vector[None]),
        metadata_json=json.dumps(metadata, ensure_ascii=False) if metadata else "",
    )


def _or_new(request_id: str | None) -> str:
    return uuid.uuid4().hex if request_id is None else request_id
