"""The last phase of a round: the campaign's own oracle, if it has one, labels what waits for it."""

import hashlib
from collections.abc import Sequence

from sqlalchemy.orm import Session

from scheduler.domain.answers import Answer
from scheduler.domain.evaluation_spec import holds_out
from scheduler.domain.labels import why_untrainable
from scheduler.domain.llm_spec import ORACLE as LLM
from scheduler.domain.spec import oracle_of
from scheduler.domain.states import Audience, LabelPurpose, Outcome, RoundKind
from scheduler.labelled_set import training_set
from scheduler.labelling import commit_answers
from scheduler.oracles.port import Oracle, OracleExhausted, OracleJob
from scheduler.oracles.registry import OracleRegistry
from scheduler.ports import Index
from scheduler.rounds.recording import Recording, RoundJob, check_not_archived, recording
from scheduler.storage import drawn_items, labels, rounds, tasks
from scheduler.storage.store import Store
from scheduler.storage.tasks import Pick
from sealpool.failpoint import reach
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, scheduler_pb2


class OracleLabelling:
    """Asks the oracle for what waits for it, commits each of its answers, and ends the round.

    The round ends too where the oracle comes to a limit of its own: the campaign is paused with the reason, and what
    is left waits for the oracle still, for the first round after the campaign was resumed.
    """

    def __init__(self, *, store: Store, index: Index, oracles: OracleRegistry) -> None:
        self._store = store
        self._index = index
        self._oracles = oracles

    def label(self, job: RoundJob) -> None:
        """Let the oracle label every task that waits for it, and end the round."""
        oracle = self._oracles[oracle_of(job.spec)]
        gone: Sequence[ItemId] = ()
        exhausted = ""
        if oracle is not None:
            with self._store.reading() as session:
                waiting = _waiting(session, job)
            answered, exhausted = self._ask(job, oracle, waiting)
            gone = self._gone(job, [item for item in waiting if item not in answered])
        finds_all = self._finds_all(job, is_automatic=oracle is not None)
        with recording(self._store, job) as record:
            check_not_archived(record.campaign)
            tasks.withdraw_items(record.session, job.campaign_id, gone)
            is_last = finds_all and _is_done(job, record)
            in_vain = _why_in_vain(job, record) if is_last else ""
            record.finish(is_last=is_last, reason=in_vain)
            if exhausted:
                record.pause(exhausted)
        reach("scheduler.round.after_label")

    def _ask(self, job: RoundJob, oracle: Oracle, waiting: Sequence[ItemId]) -> tuple[set[ItemId], str]:
        """Commit what the oracle answers; return those items, and why it stopped early, if it did."""
        answered: set[ItemId] = set()
        work = OracleJob(campaign=job.campaign, spec=job.spec, snapshot=job.snapshot, item_ids=waiting)
        try:
            for answers in oracle.label(work):
                reach("scheduler.oracle.before_commit")
                self._commit(job, oracle.annotator(job.spec), answers)
                answered.update(answer.item_id for answer in answers)
        except OracleExhausted as error:
            return answered, str(error)
        return answered, ""

    def _commit(self, job: RoundJob, annotator: str, answers: Sequence[Answer]) -> None:
        with recording(self._store, job) as record:
            check_not_archived(record.campaign)
            wanted = _still_wanted(job, record, answers)
            if not wanted:
                return
            commit_answers(
                record.session,
                record.campaign,
                wanted,
                annotator=annotator,
                purpose=None,  # that of the item's task
                now=record.now,
            )
            unsure = [answer.item_id for answer in wanted if answer.outcome is not Outcome.LABEL]
            tasks.hand_to_people(record.session, job.campaign_id, unsure)
            held_out = set(drawn_items.held_out(record.session, job.campaign_id)) if holds_out(job.spec) else set()
            _audit(job, record, [answer for answer in wanted if answer.item_id not in held_out])

    def _finds_all(self, job: RoundJob, *, is_automatic: bool) -> bool:
        """Whether a round of this kind that hands out nothing says that the pool has nothing left to label.

        Without a model it does only if an oracle of our own labels: people may correct a label yet.
        """
        if job.kind == RoundKind.WITHOUT_MODEL:
            return is_automatic
        return job.kind == RoundKind.MODEL and (job.spec.fill != scheduler_pb2.FILL_NONE or self._has_none_left(job))

    def _has_none_left(self, job: RoundJob) -> bool:
        """Whether the pool has no item that the campaign could pick yet, whatever its candidates are."""
        with self._store.reading() as session:
            if rounds.get(session, job.campaign_id, job.number).picks:
                return False
            labelled = labels.effective(session, job.campaign_id, purpose=LabelPurpose.TRAINING, until=job.snapshot)
            handed_out = tasks.items_before(session, job.campaign_id, job.number + 1)
            held_out = drawn_items.held_out(session, job.campaign_id)
        out = list(dict.fromkeys([*labelled, *handed_out, *held_out]))
        return not self._index.sample_items(job.spec.pool, 1, seed=0, exclude=out)

    def _gone(self, job: RoundJob, items: Sequence[ItemId]) -> list[ItemId]:
        """Return those of `items` that the pool no longer has: nobody can label them."""
        if not items:
            return []
        found = self._index.get_items(job.spec.pool, items, vectors=False, allow_missing=True)
        return sorted(set(items).difference(found.ids))


def _waiting(session: Session, job: RoundJob) -> list[ItemId]:
    """Return what waits for the oracle: held-out items first, for which a part of the budget is kept."""
    picked = tasks.outstanding(session, job.campaign_id, audience=Audience.ORACLE)
    if not holds_out(job.spec):
        return list(picked)
    return [*drawn_items.evaluation_outstanding(session, job.campaign_id, audience=Audience.ORACLE), *picked]


def _still_wanted(job: RoundJob, record: Recording, answers: Sequence[Answer]) -> list[Answer]:
    """Return those answers to what nobody labelled while the oracle was asked; of labels, as many as the budget has.

    In the order picked: where the budget has not room for all, the most wanted are kept.
    """
    given = {answer.item_id: answer for answer in answers}
    left = job.spec.budget - record.campaign.labelled - record.campaign.evaluation_labelled
    wanted: list[Answer] = []
    for item in _waiting(record.session, job):
        answer = given.get(item)
        if answer is None:
            continue
        is_label = answer.outcome is Outcome.LABEL
        if not is_label or left > 0:
            wanted.append(answer)
            left -= is_label
    return wanted


def _audit(job: RoundJob, record: Recording, answers: Sequence[Answer]) -> None:
    """Let people label a share of what a language model labelled, drawn by a hash: asked again, the same items."""
    if oracle_of(job.spec) != LLM:
        return
    drawn = [
        Pick(item_id=answer.item_id, score=0.0, origin=common_pb2.PICK_ORIGIN_AUDIT)
        for answer in answers
        if answer.outcome is Outcome.LABEL and is_audited(job.spec, answer.item_id)
    ]
    tasks.add(
        record.session,
        job.campaign_id,
        job.number,
        drawn,
        labelled=(),
        purpose=LabelPurpose.REVIEW,
        audience=Audience.PEOPLE,
    )


def is_audited(spec: scheduler_pb2.CampaignSpec, item: ItemId) -> bool:
    """Whether people label an item too that the language model labels.

    A hash decides, so that the draw is as good as random, and does not depend on what the model says of an item.
    """
    digest = hashlib.sha256(f"sealpool:audit:{spec.seed}:{item}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < spec.oracle.llm.audit_share * 2**64


def _is_done(job: RoundJob, record: Recording) -> bool:
    """Whether a round that knows every label handed out nothing, and nothing that was handed out is waiting."""
    return (
        job.batch > 0
        and not job.spec.HasField("stream")  # which brings new items
        and record.round.picks == 0
        and not labels.arrived_since(record.session, job.campaign_id, job.snapshot)
        and not tasks.outstanding(record.session, job.campaign_id)
    )


def _why_in_vain(job: RoundJob, record: Recording) -> str:
    """Return why nothing can be learnt from a pool that has nothing left to label; "" if something was."""
    if job.kind == RoundKind.MODEL:
        return ""
    found = training_set(record.session, job.campaign_id, job.spec, until=record.campaign.last_sequence)
    why = why_untrainable(job.spec, found.values())
    return f"its pool has nothing left to label, and the labels cannot train a model: {why}"
