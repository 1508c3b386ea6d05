"""How good a round's model is: measured on held-out items."""

from scheduler.domain.answers import Answer
from scheduler.domain.spec import oracle_of
from scheduler.domain.states import DrawKind, LabelPurpose
from scheduler.labelling import commit_answers
from scheduler.oracles.registry import OracleRegistry
from scheduler.ports import Learner
from scheduler.rounds.recording import RoundJob, recording
from scheduler.storage import campaigns, drawn_items, labels
from scheduler.storage.store import Store
from sealpool.types import LabelledItems
from sealpool.v1 import learner_pb2


class Evaluator:
    """Measures models on the held-out labels there are."""

    def __init__(self, *, store: Store, learner: Learner, oracles: OracleRegistry) -> None:
        self._store = store
        self._learner = learner
        self._oracles = oracles

    def evaluate(self, job: RoundJob) -> learner_pb2.EvaluateResponse | None:
        """Measure the round's model; None where nothing is held out, or none of it labelled."""
        self._load_held_out(job)
        pool = job.spec.evaluation_pool or (job.spec.pool if job.spec.evaluation.items else "")
        if not pool:
            return None
        with self._store.reading() as session:
            # Not those of the snapshot: they do not touch the picks, and the latest measure best.
            until = campaigns.get(session, job.campaign).last_sequence
            held_out = labels.effective(session, job.campaign_id, purpose=LabelPurpose.EVALUATION, until=until)
            if not job.spec.evaluation_pool:
                # Test points are labelled for evaluation too, and were chosen where models doubt: they would bias it.
                drawn = set(drawn_items.of_kind(session, job.campaign_id, DrawKind.EVALUATION))
                held_out = {item: classes for item, classes in held_out.items() if item in drawn}
        if not held_out:
            return None
        header = learner_pb2.EvaluateHeader(campaign=job.campaign, round=job.number, pool=pool)
        examples = LabelledItems(ids=list(held_out), labels=list(held_out.values()))
        return self._learner.evaluate(header, examples)

    def _load_held_out(self, job: RoundJob) -> None:
        oracle = self._oracles[oracle_of(job.spec)]
        if oracle is None or not job.spec.evaluation_pool or job.held_out_loaded:
            return
        given = oracle.held_out(job.spec)
        with recording(self._store, job) as record:
            if record.campaign.held_out_loaded:
                return
            if given:
                commit_answers(
                    record.session,
                    record.campaign,
                    [Answer(item_id=item, classes=classes) for item, classes in given.items()],
                    annotator=oracle.annotator(job.spec),
                    purpose=LabelPurpose.EVALUATION,
                    now=record.now,
                )
            record.campaign.held_out_loaded = True
