"""The port of oracles that the scheduler runs itself."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from sealpool.types import ItemId
from sealpool.v1 import scheduler_pb2

Labels = Mapping[ItemId, tuple[int, ...]]
"""Class indices of items, ascending."""


class Oracle(Protocol):
    """Labels items when asked. Any thread may ask; asked again about an item it gives the same answer.

    Errors that trying again may mend are Unavailable and DeadlineExceeded; FailedPrecondition says what a person has
    to mend.
    """

    annotator: str
    """In whose name its labels stand."""

    def check(self, spec: scheduler_pb2.CampaignSpec) -> None:
        """Look, before a campaign begins, whether its labels can be told; FailedPrecondition names the spec's field.

        It need not find every fault: the rounds meet the others.
        """
        ...

    def label(self, spec: scheduler_pb2.CampaignSpec, item_ids: Sequence[ItemId]) -> Labels:
        """Label items of the campaign's pool. Items that it cannot tell are left out, and stay open tasks.

        So are items that the pool no longer has; their tasks are withdrawn.
        """
        ...

    def held_out(self, spec: scheduler_pb2.CampaignSpec) -> Labels:
        """Label the items of the campaign's evaluation pool, as many as it can."""
        ...
