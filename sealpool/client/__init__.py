"""Clients of the three services: NumPy in, NumPy out, and the errors of `sealpool.errors`."""

from sealpool.client.index import CandidateUpdate, IndexClient, Neighbors
from sealpool.client.learner import LearnerClient, Predictions
from sealpool.client.options import ClientOptions
from sealpool.client.scheduler import SchedulerClient

__all__ = [
    "CandidateUpdate",
    "ClientOptions",
    "IndexClient",
    "LearnerClient",
    "Neighbors",
    "Predictions",
    "SchedulerClient",
]
