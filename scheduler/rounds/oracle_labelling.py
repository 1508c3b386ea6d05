"""The last phase of a round: the campaign's own oracle, if it has one, labels what waits for it."""

from collections.abc import Sequence

from scheduler.domain.answers import Answer
from scheduler.domain.spec import oracle_of
from scheduler.domain.states import LabelPurpose, Outcome, RoundKind
from scheduler.labelling import commit_labels
from scheduler.oracles.port import OracleJob
from scheduler.oracles.registry import OracleRegistry
from scheduler.ports import Index
from scheduler.rounds.recording import Recording, RoundJob, check_not_archived, recording
from scheduler.storage import tasks
from scheduler.storage.store import Store
from sealpool.failpoint import reach
from sealpool.types import ItemId
from sealpool.v1 import scheduler_pb2


class OracleLabelling:
    """Asks the oracle for what is outstanding, commits each of its answers, and ends the round."""

    def __init__(self, *, store: Store, index: Index, oracles: OracleRegistry) -> None:
        self._store = store
        self._index = index
        self._oracles = oracles

    def label(self, job: RoundJob) -> None:
        """Let the oracle label every task that waits for it, and end the round."""
        oracle = self._oracles[oracle_of(job.spec)]
        gone: Sequence[ItemId] = ()
        if oracle is not None:
            with self._store.reading() as session:
                waiting = tasks.outstanding(session, job.campaign_id)
            answered: set[ItemId] = set()
            work = OracleJob(campaign=job.campaign, spec=job.spec, snapshot=job.snapshot, item_ids=waiting)
            for answers in oracle.label(work):
                self._commit(job, oracle.annotator(job.spec), answers)
                answered.update(answer.item_id for answer in answers)
            gone = self._gone(job, [item for item in waiting if item not in answered])
        with recording(self._store, job) as record:
            check_not_archived(record.campaign)
            tasks.withdraw_items(record.session, job.campaign_id, gone)
            record.finish(is_last=_pool_is_exhausted(job, record))
        reach("scheduler.round.after_label")

    def _commit(self, job: RoundJob, annotator: str, answers: Sequence[Answer]) -> None:
        with recording(self._store, job) as record:
            check_not_archived(record.campaign)
            wanted = _still_wanted(job, record, answers)
            if wanted:
                commit_labels(
                    record.session,
                    record.campaign,
                    wanted,
                    annotator=annotator,
                    purpose=LabelPurpose.TRAINING,
                    now=record.now,
                )

    def _gone(self, job: RoundJob, items: Sequence[ItemId]) -> list[ItemId]:
        """Return those of `items` that the pool no longer has: nobody can label them."""
        if not items:
            return []
        found = self._index.get_items(job.spec.pool, items, vectors=False, allow_missing=True)
        return sorted(set(items).difference(found.ids))


def _still_wanted(job: RoundJob, record: Recording, answers: Sequence[Answer]) -> dict[ItemId, tuple[int, ...]]:
    """Return those labels that the budget still has room for and that nobody gave while the oracle was asked."""
    given = {answer.item_id: answer.classes for answer in answers if answer.outcome is Outcome.LABEL}
    waiting = [item for item in tasks.outstanding(record.session, job.campaign_id) if item in given]
    return {item: given[item] for item in waiting[: job.spec.budget - record.campaign.labelled]}


def _pool_is_exhausted(job: RoundJob, record: Recording) -> bool:
    """Whether a model that knows every label found nothing to hand out, and nothing that was handed out is waiting."""
    return (
        job.kind == RoundKind.MODEL
        and job.batch > 0
        and job.spec.fill != scheduler_pb2.FILL_NONE
        and record.round.picks == 0
        and record.campaign.last_sequence == job.snapshot
        and not tasks.outstanding(record.session, job.campaign_id)
    )
