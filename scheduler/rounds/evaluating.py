"""How good a round's model is: measured on held-out items."""

from scheduler.domain.spec import oracle_of
from scheduler.domain.states import LabelPurpose
from scheduler.labelling import commit_labels
from scheduler.oracles.registry import OracleRegistry
from scheduler.ports import Learner
from scheduler.rounds.recording import RoundJob, recording
from scheduler.storage import campaigns, labels
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
        if not job.spec.evaluation_pool:
            return None
        with self._store.reading() as session:
            # Not those of the snapshot: they do not touch the picks, and the latest measure best.
            until = campaigns.get(session, job.campaign).last_sequence
            held_out = labels.effective(session, job.campaign_id, purpose=LabelPurpose.EVALUATION, until=until)
        if not held_out:
            return None
        header = learner_pb2.EvaluateHeader(campaign=job.campaign, round=job.number, pool=job.spec.evaluation_pool)
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
                commit_labels(
                    record.session,
                    record.campaign,
                    given,
                    annotator=oracle.annotator(job.spec),
                    purpose=LabelPurpose.EVALUATION,
                    now=record.now,
                )
            record.campaign.held_out_loaded = True
