"""Clients of the three services: NumPy in, NumPy out, and the errors of `sealpool.errors`."""

from sealpool.client.index import CandidateUpdate, IndexClient, Neighbors
from sealpool.client.label_studio import LabelStudioClient
from sealpool.client.learner import LearnerClient, Predictions
from sealpool.client.options import ClientOptions
from sealpool.client.scheduler import SchedulerClient
from sealpool.client.stream import StreamClient, stream_item

__all__ = [
    "CandidateUpdate",
    "ClientOptions",
    "IndexClient",
    "LabelStudioClient",
    "LearnerClient",
    "Neighbors",
    "Predictions",
    "SchedulerClient",
    "StreamClient",
    "stream_item",
]
