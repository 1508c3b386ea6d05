"""Annotations of Label Studio as answers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from scheduler.domain.answers import Answer
from scheduler.domain.states import Outcome
from scheduler.label_studio.api import Json, TheirAnnotation
from scheduler.label_studio.labelling_config import CANNOT_TELL, CHOICES, COMMENT
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, scheduler_pb2

MAX_COMMENT_BYTES = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """An annotation that is no answer, and why."""

    problem: str


def answer_of(spec: scheduler_pb2.CampaignSpec, item_id: ItemId, given: TheirAnnotation) -> Answer | Unreadable:
    """Return what an annotation says.

    A skip is SKIP. The tick at "cannot tell", and a form sent empty where exactly one class was asked for, are
    CANNOT_TELL; an empty form of a multi-label campaign says that no label holds. Classes that the campaign does not
    have, or several where one was asked for, are no answer: somebody changed the project's form.
    """
    comment = _comment(given.result)
    if given.was_skipped:
        return Answer(item_id=item_id, outcome=Outcome.SKIP, comment=comment)
    several = spec.task == common_pb2.TASK_KIND_MULTILABEL
    said = list(dict.fromkeys(_said(given.result, CHOICES, "choices")))
    if any(_said(given.result, CANNOT_TELL, "choices")) or not (said or several):
        return Answer(item_id=item_id, outcome=Outcome.CANNOT_TELL, comment=comment)
    if not set(said) <= set(spec.classes):
        return Unreadable(problem="names a class that the campaign does not have")
    if len(said) > 1 and not several:
        return Unreadable(problem="names several classes")
    classes = tuple(sorted(list(spec.classes).index(name) for name in said))
    return Answer(item_id=item_id, classes=classes, comment=comment)


def _comment(result: Sequence[Json]) -> str:
    text = "\n".join(_said(result, COMMENT, "text")).replace("\0", "")
    return text.encode(errors="replace")[:MAX_COMMENT_BYTES].decode(errors="ignore")


def _said(result: Sequence[Json], control: str, kind: str) -> Iterator[str]:
    for one in result:
        value = one.get("value")
        if one.get("from_name") == control and isinstance(value, Mapping):
            given = value.get(kind)
            yield from map(str, given if isinstance(given, list) else [given] if given else [])
