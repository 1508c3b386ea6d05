"""A campaign's open tasks into its project, and those that are open no more out of it."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from scheduler.asking import asking
from scheduler.domain.llm_spec import annotator_of
from scheduler.domain.states import CampaignState
from scheduler.label_studio.api import TheirTask
from scheduler.label_studio.client import PAGE, LabelStudioClient
from scheduler.label_studio.labelling_config import IMAGE
from scheduler.label_studio.predictions import in_order
from scheduler.label_studio.receiving import chunks
from scheduler.ports import Index, Learner
from scheduler.storage import campaigns
from scheduler.storage import label_studio as storage
from scheduler.storage.models import Task
from scheduler.storage.store import Store
from sealpool.errors import FailedPrecondition, NotFound
from sealpool.failpoint import reach
from sealpool.runtime.logs import Logger
from sealpool.types import ItemId, Payload
from sealpool.v1 import label_studio_pb2, scheduler_pb2

HOLDER = "label-studio"
"""Who leases the tasks that wait in Label Studio."""


class Pusher:
    """Puts tasks into projects and takes them out.

    Each step may be killed anywhere: what is in a project is asked of Label Studio, not guessed.

    Parameters
    ----------
    held_s
        How long tasks that wait in Label Studio are kept from others, from each time that all went well. A Label
        Studio that is away for longer loses them to whoever asks the scheduler.
    """

    def __init__(self, *, store: Store, index: Index, learner: Learner, held_s: float, log: Logger) -> None:
        self._store = store
        self._index = index
        self._learner = learner
        self._held = timedelta(seconds=held_s)
        self._log = log

    def hold(self, name: str) -> dict[ItemId, Task]:
        """Take the tasks that are to wait in Label Studio, one an item, most wanted first.

        An item that everybody there has answered, and that still wants an answer, waits elsewhere until somebody new
        labels there.
        """
        with self._store.writing() as session:
            campaign = campaigns.lock(session, name)
            now, machine = self._store.clock.now(), annotator_of(campaigns.spec_of(campaign).oracle.llm)
            wanted = storage.hold_wanted(session, campaign.id, holder=HOLDER, now=now, until=now + self._held)
            in_vain = storage.asked_in_vain(session, campaign.id, wanted, machine=machine)
            storage.give_back(session, campaign.id, in_vain, holder=HOLDER)
            return {item: task for item, task in wanted.items() if item not in set(in_vain)}

    def reconcile(self, name: str, client: LabelStudioClient, project_id: int) -> int:
        """Note tasks that were pushed and not noted, since somebody was killed in between; return how many.

        Of two tasks of one item the later is taken out again.
        """
        with self._store.reading() as session:
            greatest = storage.greatest_task(session, campaigns.get(session, name).id)
        noted = 0
        for page in client.tasks_after(project_id, greatest):
            doubled = self._note(name, page)
            noted += sum(bool(task.item_id) for task in page) - len(doubled)
            self._delete_unanswered(name, client, project_id, doubled)
        return noted

    def close(self, name: str, client: LabelStudioClient, project_id: int, wanted: Mapping[ItemId, Task]) -> int:
        """Take out what was answered elsewhere or withdrawn, so that nobody does it in vain; return how many."""
        with self._store.reading() as session:
            there = storage.tasks_there(session, campaigns.get(session, name).id)
        stale = [row.their_id for item, row in there.items() if row.open and item not in wanted]
        return sum(self._close(name, client, project_id, some) for some in chunks(stale, PAGE))

    def push(
        self,
        name: str,
        client: LabelStudioClient,
        link: label_studio_pb2.LabelStudioLink,
        wanted: Mapping[ItemId, Task],
    ) -> int:
        """Put in what is not there yet, most wanted first; return how many."""
        with self._store.reading() as session:
            campaign = campaigns.get(session, name)
            there = storage.tasks_there(session, campaign.id)
        if campaign.state != CampaignState.ACTIVE:
            return 0
        missing = [task for item, task in wanted.items() if item not in there or not there[item].open]
        spec, pushed, unseen = campaigns.spec_of(campaign), 0, 0
        for start in range(0, len(missing), PAGE):
            some = missing[start : start + PAGE]
            bodies = self._bodies(spec, link.input, some)
            unseen += len(some) - len(bodies)
            if bodies:
                client.add_tasks(link.project_id, bodies)
                reach("scheduler.label_studio.pushed")
                pushed += self.reconcile(name, client, link.project_id)
                self._order_by(client, link.project_id, bodies)
        if unseen:
            raise FailedPrecondition(f"{unseen:,} items have nothing to show as {link.input}", field="input")
        return pushed

    def _note(self, name: str, tasks: Sequence[TheirTask]) -> list[int]:
        with self._store.writing() as session:
            campaign = campaigns.lock(session, name)
            ours = storage.handed_out(session, campaign.id, [ItemId(task.item_id) for task in tasks if task.item_id])
            return [
                task.id
                for task in tasks
                if task.item_id in ours
                and not storage.note_task(
                    session, campaign.id, ItemId(task.item_id), their_id=task.id, is_open=not task.is_labelled
                )
            ]

    def _close(self, name: str, client: LabelStudioClient, project_id: int, some: Sequence[int]) -> int:
        kept = self._delete_unanswered(name, client, project_id, some)
        with self._store.writing() as session:
            campaign = campaigns.lock(session, name)
            storage.note_labelled(session, campaign.id, kept)
            storage.note_deleted(session, campaign.id, [task for task in some if task not in kept])
        return len(some)

    def _delete_unanswered(
        self, name: str, client: LabelStudioClient, project_id: int, some: Sequence[int]
    ) -> list[int]:
        """Delete those of some tasks that nobody answered there, and return the others: their history stays."""
        if not some:
            return []
        kept = [
            task.id
            for task in client.tasks_by_id(project_id, some)
            if not all(annotation.was_skipped for annotation in task.annotations)
        ]
        gone = [task for task in some if task not in kept]
        if gone:
            client.delete_tasks(project_id, gone)
            self._log.info("tasks taken out of Label Studio", campaign=name, tasks=len(gone))
        return kept

    def _bodies(self, spec: scheduler_pb2.CampaignSpec, shown: str, some: Sequence[Task]) -> list[dict[str, Any]]:
        ids = [ItemId(task.item_id) for task in some]
        with asking("the index server"):
            items = self._index.get_items(spec.pool, ids, vectors=False, payloads=True, allow_missing=True)
        payloads = dict(zip(items.ids, items.payloads or (), strict=True))
        seen = [(task, _shown(shown, payloads[ItemId(task.item_id)])) for task in some if task.item_id in payloads]
        seen = [(task, content) for task, content in seen if content]
        predictions = self._predictions(spec, [task.item_id for task, _ in seen])
        return [
            {
                "data": {shown: content, "item_id": task.item_id, "round": task.round, "score": task.score},
                "predictions": [predictions[task.item_id]] if task.item_id in predictions else [],
            }
            for task, content in seen
        ]

    def _predictions(self, spec: scheduler_pb2.CampaignSpec, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        try:
            with asking("the learner"):
                return dict(zip(ids, in_order(spec, self._learner.predict(spec.name, ids=ids)), strict=True))
        except (NotFound, FailedPrecondition):  # no model yet
            return {}

    def _order_by(self, client: LabelStudioClient, project_id: int, bodies: Sequence[Mapping[str, Any]]) -> None:
        versions = {one["model_version"] for body in bodies for one in body["predictions"]}
        for version in versions - {client.get_project(project_id).model_version}:
            client.set_model_version(project_id, version)


def _shown(shown: str, payload: Payload) -> str:
    return payload.uri if shown == IMAGE else payload.text or payload.uri
