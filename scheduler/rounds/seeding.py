"""The first batch: items that are chosen before there is a label."""

from scheduler.domain.seeds import Purpose, derive_seed
from scheduler.domain.states import LabelPurpose, RoundKind
from scheduler.ports import Index
from scheduler.rounds.recording import RoundJob
from scheduler.storage import labels, tasks
from scheduler.storage.store import Store
from sealpool.v1 import common_pb2, learner_pb2


class Seeder:
    """Draws batches while no item is labelled."""

    def __init__(self, *, store: Store, index: Index) -> None:
        self._store = store
        self._index = index

    def draw(self, job: RoundJob) -> learner_pb2.SelectResponse:
        """Draw the batch at random, from the whole pool: the seed set, or another while no item is labelled."""
        with self._store.reading() as session:
            labelled = labels.effective(session, job.campaign_id, purpose=LabelPurpose.TRAINING, until=job.snapshot)
            handed_out = tasks.items_before(session, job.campaign_id, job.number)
        exclude = list(dict.fromkeys([*labelled, *handed_out]))
        seed = derive_seed(job.spec.seed, job.number, Purpose.SAMPLE)
        ids = self._index.sample_items(job.spec.pool, job.batch, seed=seed, exclude=exclude)
        origin = common_pb2.PICK_ORIGIN_SEED if job.kind == RoundKind.SEED else common_pb2.PICK_ORIGIN_FILL
        return learner_pb2.SelectResponse(
            ids=ids,
            scores=[0.0] * len(ids),
            origins=[origin] * len(ids),
            strategy="random",
            pool_version=self._index.get_pool(job.spec.pool).version,
        )
