"""Held-out items of the pool itself: drawn once, before anything is picked."""

from scheduler.domain.annotation_spec import annotations_of
from scheduler.domain.evaluation_spec import check_pool_has_room
from scheduler.domain.seeds import Purpose, derive_seed
from scheduler.domain.spec import oracle_of
from scheduler.domain.states import Audience, DrawKind, LabelPurpose
from scheduler.drawing import draw_real
from scheduler.oracles.registry import OracleRegistry
from scheduler.pools import read_pool
from scheduler.ports import Index
from scheduler.rounds.handed_out import handed_out_of
from scheduler.rounds.recording import Recording, RoundJob, recording
from scheduler.storage import campaigns, drawn_items, labels, tasks
from scheduler.storage.store import Store
from scheduler.storage.tasks import Pick
from sealpool.types import ItemId
from sealpool.v1 import common_pb2

_SEEDS = {DrawKind.EVALUATION: Purpose.EVALUATION, DrawKind.TEST_POOL: Purpose.TEST_POOL}


class HeldOutDrawer:
    """Draws a campaign's held-out items and its test pool, at random among what nobody has labelled."""

    def __init__(self, *, store: Store, index: Index, oracles: OracleRegistry) -> None:
        self._store = store
        self._index = index
        self._oracles = oracles

    def draw(self, job: RoundJob) -> None:
        """Draw what is not drawn yet. Asks nothing where the campaign holds nothing out."""
        evaluation = job.spec.evaluation
        for kind, count in ((DrawKind.EVALUATION, evaluation.items), (DrawKind.TEST_POOL, evaluation.test_pool)):
            if count:
                self._draw(job, kind, count)

    def _draw(self, job: RoundJob, kind: DrawKind, count: int) -> None:
        with self._store.reading() as session:
            if drawn_items.is_drawn(session, job.campaign_id, kind):
                return
            until = campaigns.get(session, job.campaign).last_sequence
            labelled = labels.effective(session, job.campaign_id, purpose=LabelPurpose.TRAINING, until=until)
            # Of this round's number too: items that synthesis found, and asked about while the round ran.
            handed_out = tasks.items_before(session, job.campaign_id, job.number + 1)
            held_out = drawn_items.held_out(session, job.campaign_id)
        check_pool_has_room(job.spec, read_pool(self._index, job.spec.pool).size)
        examples = map(ItemId, job.spec.seeding.item_ids)
        exclude = list(dict.fromkeys([*labelled, *handed_out, *held_out, *examples]))
        # Not the round's seed: which round draws must not matter.
        seed = derive_seed(job.spec.seed, 0, _SEEDS[kind])
        drawn = draw_real(self._index, job.spec.pool, count, seed=seed, exclude=exclude)
        with recording(self._store, job) as record:
            self._write(job, record, kind, drawn)

    def _write(self, job: RoundJob, record: Recording, kind: DrawKind, drawn: list[ItemId]) -> None:
        # Somebody may have labelled one of them, unasked, or been asked about it, while they were drawn.
        known = labels.known_items(record.session, job.campaign_id, drawn, purpose=LabelPurpose.TRAINING)
        known |= handed_out_of(record.session, job.campaign_id, drawn)
        items = [item for item in drawn if item not in known]
        drawn_items.add(record.session, job.campaign_id, kind, items)
        if kind is DrawKind.EVALUATION:
            add_evaluation_tasks(job, record, [(item, 0.0) for item in items], self._oracles)


def add_evaluation_tasks(
    job: RoundJob, record: Recording, items: list[tuple[ItemId, float]], oracles: OracleRegistry
) -> None:
    """Write items with their scores as tasks for evaluation, for whoever labels the picks too."""
    evaluated = common_pb2.PICK_ORIGIN_EVALUATION
    picks = [Pick(item_id=item, score=score, origin=evaluated) for item, score in items]
    ids = [item for item, _ in items]
    tasks.add(
        record.session,
        job.campaign_id,
        job.number,
        picks,
        labelled=labels.known_items(record.session, job.campaign_id, ids, purpose=LabelPurpose.EVALUATION),
        purpose=LabelPurpose.EVALUATION,
        audience=Audience.PEOPLE if oracles[oracle_of(job.spec)] is None else Audience.ORACLE,
        annotations=annotations_of(job.spec),
    )
