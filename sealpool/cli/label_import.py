"""Labels handed in one call after the other; with a report of what is refused, where the rest is to go in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound
from sealpool.v1 import scheduler_pb2

LABELS_A_CALL = 1_000
_REFUSALS = (InvalidArgument, NotFound, FailedPrecondition)
"""What is wrong with labels, not with the moment: handing in fewer of them may do."""

Submit = Callable[[Mapping[str, Sequence[str]]], scheduler_pb2.SubmitLabelsResponse]


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """A label that was not taken, and why."""

    item_id: str
    classes: Sequence[str]
    reason: str


@dataclass(kw_only=True, slots=True)
class Imported:
    """What became of many labels."""

    total: scheduler_pb2.SubmitLabelsResponse = field(default_factory=scheduler_pb2.SubmitLabelsResponse)
    refused: list[Refused] = field(default_factory=list)

    def add(self, answer: scheduler_pb2.SubmitLabelsResponse) -> None:
        """Count what one call took."""
        for name in ("accepted", "unsolicited", "corrections", "waiting", "given_up"):
            setattr(self.total, name, getattr(self.total, name) + getattr(answer, name))
        self.total.labels = answer.labels


def import_labels(labels: Mapping[str, Sequence[str]], submit: Submit, *, keep_going: bool) -> Imported:
    """Hand in labels, item id to classes, in calls of LABELS_A_CALL.

    Parameters
    ----------
    keep_going
        Halve a call that is refused until only labels at fault are left out. Otherwise the first refusal is raised, and
        the calls before it stay.
    """
    done = Imported()
    items = list(labels)
    for start in range(0, len(items), LABELS_A_CALL):
        some = items[start : start + LABELS_A_CALL]
        if keep_going:
            _halve(some, labels, submit, done)
        else:
            done.add(submit({item: labels[item] for item in some}))
    return done


def _halve(items: Sequence[str], labels: Mapping[str, Sequence[str]], submit: Submit, done: Imported) -> None:
    try:
        done.add(submit({item: labels[item] for item in items}))
    except _REFUSALS as error:
        if len(items) == 1:
            done.refused.append(Refused(item_id=items[0], classes=labels[items[0]], reason=error.message))
            return
        middle = len(items) // 2
        _halve(items[:middle], labels, submit, done)
        _halve(items[middle:], labels, submit, done)
