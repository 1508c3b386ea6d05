"""What becomes of an item's tasks when somebody has answered."""

from datetime import datetime

from sqlalchemy.orm import Session

from scheduler.domain.agreement import Decision
from scheduler.domain.states import LabelPurpose, Outcome, TaskState
from scheduler.labelling_cases import Case
from scheduler.storage import item_tasks
from scheduler.storage.item_tasks import ItemTask


class TaskChanges:
    """Changes of tasks, gathered over many answers and written with a statement a kind. No item may come twice."""

    def __init__(self, *, now: datetime) -> None:
        self._now = now
        self._closed: list[int] = []
        self._given_up: list[int] = []
        self._reopened: list[int] = []
        self._more: list[tuple[ItemTask, int]] = []

    def settle(self, case: Case, decision: Decision) -> None:
        """Bring an item's tasks in line with what was decided: as many stay open as annotations are still wanted."""
        if decision.label is not None or (case.is_labelled and case.answer.outcome is Outcome.LABEL):
            unfinished = (TaskState.OPEN, TaskState.GIVEN_UP)
            self._closed += [task.id for task in case.tasks if task.state in unfinished]
        elif case.is_labelled:
            self._settle_review(case, decision)
        elif decision.given_up:
            self._given_up += [task.id for task in case.tasks if task.state is not TaskState.WITHDRAWN]
        else:
            self._keep_open(case, decision.more)

    def write(self, session: Session, campaign_id: int) -> None:
        """Write what was gathered."""
        item_tasks.end(session, self._closed, TaskState.CLOSED)
        item_tasks.end(session, self._given_up, TaskState.GIVEN_UP)
        item_tasks.reopen(session, self._reopened)
        item_tasks.add_slots(session, campaign_id, self._more)

    def _settle_review(self, case: Case, decision: Decision) -> None:
        """Show a doubted label to the next annotator, or let it stand where enough of them could not tell."""
        reviews = [t for t in case.tasks if t.purpose is LabelPurpose.REVIEW and t.state is TaskState.OPEN]
        if decision.given_up:
            self._closed += [task.id for task in reviews]
            return
        self._reopened += [task.id for task in reviews if task.annotator == case.annotator]

    def _keep_open(self, case: Case, wanted: int) -> None:
        tasks = [task for task in case.tasks if task.purpose is case.purpose]
        # Tasks that others work on first: closing one would waste their answer.
        open_ = sorted(
            (task for task in tasks if task.state is TaskState.OPEN),
            key=lambda task: not self._is_leased_by_another(task, case.annotator),
        )
        closed = [task for task in tasks if task.state is TaskState.CLOSED]
        if not open_ and (not closed or len(closed) < len(tasks)):  # nobody asks, or nobody does any more
            return
        self._closed += [task.id for task in open_[wanted:]]
        self._reopened += [task.id for task in open_[:wanted] if task.annotator == case.annotator]
        missing = max(wanted - len(open_), 0)
        self._reopened += [task.id for task in closed[:missing]]
        if missing > len(closed):
            self._more.append((max(tasks, key=lambda task: task.slot), missing - len(closed)))

    def _is_leased_by_another(self, task: ItemTask, annotator: str) -> bool:
        is_leased = task.lease_expires_at is not None and task.lease_expires_at > self._now
        return is_leased and task.annotator != annotator
