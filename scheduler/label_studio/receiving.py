"""Annotations taken from Label Studio, however they come: each version of each counts once."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from scheduler.label_studio.answers import Unreadable, answer_of
from scheduler.label_studio.api import TheirAnnotation, TheirTask
from scheduler.label_studio.client import LabelStudioClient
from scheduler.labelling import commit_answers
from scheduler.service.checks import check_annotator
from scheduler.storage import campaigns
from scheduler.storage import label_studio as storage
from scheduler.storage.store import Store
from sealpool.errors import FailedPrecondition, InvalidArgument
from sealpool.failpoint import reach
from sealpool.runtime.logs import Logger
from sealpool.types import ItemId
from sealpool.v1 import scheduler_pb2

_REMEMBERED = 10_000


@dataclass(kw_only=True, slots=True)
class Taken:
    """What became of some tasks' annotations."""

    received: int = 0
    labelled: list[int] = field(default_factory=list)
    """Tasks that Label Studio hands out no more, with nothing left to take."""
    refused: str = ""
    """Why one could not be taken: it is to be tried again."""


class Receiver:
    """Takes annotations in.

    Parameters
    ----------
    on_labels
        As for `LabelService`.
    """

    def __init__(self, *, store: Store, on_labels: Callable[[str], None], log: Logger) -> None:
        self._store = store
        self._on_labels = on_labels
        self._log = log
        self._told: set[tuple[str, int, str]] = set()
        self._lock = threading.Lock()

    def take(self, name: str, client: LabelStudioClient, tasks: Sequence[TheirTask]) -> Taken:
        """Commit what is new of some tasks' annotations; those of other people's tasks are left alone."""
        taken = Taken()
        spec, fresh = self._fresh(name, tasks)
        unread: set[int] = set()
        for task, annotation in fresh:
            try:
                taken.received += self._take(name, spec, client, task, annotation)
            except (FailedPrecondition, InvalidArgument) as error:
                taken.refused = taken.refused or error.message
                unread.add(task.id)
        taken.labelled = [task.id for task in tasks if task.is_labelled and task.id not in unread]
        if taken.received and spec.rule.after_labels:
            self._on_labels(name)
        return taken

    def _fresh(
        self, name: str, tasks: Sequence[TheirTask]
    ) -> tuple[scheduler_pb2.CampaignSpec, list[tuple[TheirTask, TheirAnnotation]]]:
        with self._store.reading() as session:
            campaign = campaigns.get(session, name)
            known = storage.versions(session, campaign.id, [one.id for task in tasks for one in task.annotations])
            ours = storage.handed_out(session, campaign.id, [ItemId(task.item_id) for task in tasks if task.item_id])
        mine = [task for task in tasks if task.item_id in ours]
        pairs = [(task, one) for task in mine for one in task.annotations if one.version > known.get(one.id, "")]
        return campaigns.spec_of(campaign), sorted(pairs, key=lambda pair: pair[1].version)

    def _take(
        self,
        name: str,
        spec: scheduler_pb2.CampaignSpec,
        client: LabelStudioClient,
        task: TheirTask,
        annotation: TheirAnnotation,
    ) -> bool:
        answer = answer_of(spec, ItemId(task.item_id), annotation)
        if isinstance(answer, Unreadable):
            self._tell_once(name, annotation, answer)
            return False
        annotator = _checked(client.annotator(annotation.user_id), annotation)
        with self._store.writing() as session:
            campaign = campaigns.lock(session, name)
            # Looked at again under the lock: the webhook and a poll may bring the same at once.
            if annotation.version <= storage.versions(session, campaign.id, [annotation.id]).get(annotation.id, ""):
                return False
            now = self._store.clock.now()
            commit_answers(session, campaign, [answer], annotator=annotator, purpose=None, now=now)
            storage.note_annotation(session, campaign.id, annotation.id, annotation.version)
            session.flush()
            reach("scheduler.label_studio.before_commit")
        reach("scheduler.label_studio.after_commit")
        return True

    def _tell_once(self, name: str, annotation: TheirAnnotation, answer: Unreadable) -> None:
        key = (name, annotation.id, annotation.version)
        with self._lock:
            if key in self._told:
                return
            if len(self._told) >= _REMEMBERED:
                self._told.clear()
            self._told.add(key)
            count = sum(campaign == name for campaign, _, _ in self._told)
        self._log.warning(
            "annotation left out", campaign=name, annotation=annotation.id, problem=answer.problem, left_out=count
        )


def _checked(annotator: str, annotation: TheirAnnotation) -> str:
    try:
        return check_annotator(annotator)
    except InvalidArgument:
        return f"label-studio-user-{annotation.user_id}"


def chunks(values: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Yield `values` in pieces."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
