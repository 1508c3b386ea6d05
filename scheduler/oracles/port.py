"""The port of oracles that the scheduler runs itself."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from scheduler.domain.answers import Answer
from sealpool.types import ItemId
from sealpool.v1 import scheduler_pb2

Labels = Mapping[ItemId, tuple[int, ...]]
"""Class indices of items, ascending."""


class OracleExhausted(Exception):
    """A limit that the campaign sets its oracle leaves no room for more. What was answered has been yielded.

    The message says which limit, and is the same as long as the limit is.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class OracleJob:
    """What an oracle is asked to label.

    Parameters
    ----------
    snapshot
        The label sequence that the round began at. What an oracle shows of earlier labels ends there, so that asking
        again asks the same.
    item_ids
        Items of the campaign's pool, in the order picked.
    """

    campaign: str
    spec: scheduler_pb2.CampaignSpec
    snapshot: int
    item_ids: Sequence[ItemId]


class Oracle(Protocol):
    """Labels items when asked. Any thread may ask; asked again about an item it gives the same answer.

    Errors that trying again may mend are Unavailable and DeadlineExceeded; FailedPrecondition says what a person has
    to mend.
    """

    def annotator(self, spec: scheduler_pb2.CampaignSpec) -> str:
        """Return in whose name its labels stand."""
        ...

    def check(self, spec: scheduler_pb2.CampaignSpec) -> None:
        """Look, before a campaign begins, whether its labels can be told; FailedPrecondition names the spec's field.

        It need not find every fault: the rounds meet the others.
        """
        ...

    def label(self, job: OracleJob) -> Iterator[Sequence[Answer]]:
        """Yield answers as they come; each sequence is committed before the next is asked for.

        CANNOT_TELL, and SKIP alike, leave an item to people. Items without an answer stay open tasks. Those that the
        pool no longer has are among them; their tasks are withdrawn.

        Raises
        ------
        OracleExhausted
            The campaign is paused; the items that are left are asked about after it was resumed.
        """
        ...

    def held_out(self, spec: scheduler_pb2.CampaignSpec) -> Labels:
        """Label the items of the campaign's evaluation pool, as many as it can."""
        ...
