"""What a round does in each of its states."""

from collections.abc import Callable, Mapping, Sequence

from scheduler.domain.labels import why_alike
from scheduler.domain.seeds import Purpose, derive_seed
from scheduler.domain.spec import expanding_classes_of, oracle_of
from scheduler.domain.states import Audience, LabelPurpose, RoundKind, RoundState
from scheduler.domain.strategy_spec import FALLBACK, needs_model, strategy_to_ask_for
from scheduler.oracles.registry import OracleRegistry
from scheduler.ports import Index, Learner
from scheduler.rounds.evaluating import Evaluator
from scheduler.rounds.oracle_labelling import OracleLabelling
from scheduler.rounds.recording import RoundJob, check_not_archived, recording
from scheduler.rounds.seeding import Seeder
from scheduler.storage import labels, tasks
from scheduler.storage.store import Store
from scheduler.storage.tasks import Pick
from sealpool.errors import FailedPrecondition
from sealpool.failpoint import reach
from sealpool.types import ItemId, LabelledItems
from sealpool.v1 import common_pb2, learner_pb2, scheduler_pb2

Phase = Callable[[RoundJob], None]


class Phases:
    """The phases of a round. Each is idempotent, and raises what the services behind it raise."""

    def __init__(self, *, store: Store, learner: Learner, index: Index, oracles: OracleRegistry) -> None:
        self._store = store
        self._learner = learner
        self._oracles = oracles
        self._seeder = Seeder(store=store, index=index)
        self._evaluator = Evaluator(store=store, learner=learner, oracles=oracles)
        labelling = OracleLabelling(store=store, index=index, oracles=oracles)
        self.by_state: Mapping[RoundState, Phase] = {
            RoundState.TRAINING: self.train,
            RoundState.EVALUATING: self.evaluate,
            RoundState.SELECTING: self.select,
            RoundState.LABELLING: labelling.label,
        }

    def train(self, job: RoundJob) -> None:
        """Train on the whole labelled set of the snapshot."""
        header = learner_pb2.TrainHeader(
            campaign=job.campaign,
            round=job.number,
            pool=job.spec.pool,
            task=job.spec.task,
            classes=job.spec.classes,
            model=job.spec.model,
            seed=derive_seed(job.spec.seed, job.number, Purpose.TRAIN),
        )
        result = self._learner.train(header, _examples(self._labelled(job)))
        reach("scheduler.round.after_train")
        with recording(self._store, job) as record:
            record.round.labels = result.examples
            record.round.pool_version = result.pool_version
            record.round.notes = list(result.notes)
            record.add_seconds(scheduler_pb2.PhaseSeconds(train=result.train_seconds))
            record.move_to(RoundState.EVALUATING)

    def evaluate(self, job: RoundJob) -> None:
        """Measure the model on the held-out labels there are; the last round ends with that."""
        answer = self._evaluator.evaluate(job)
        reach("scheduler.round.after_evaluate")
        with recording(self._store, job) as record:
            if answer is not None:
                record.round.quality = answer.quality.SerializeToString()
                record.add_seconds(scheduler_pb2.PhaseSeconds(evaluate=answer.seconds))
            if job.kind == RoundKind.FINAL:
                record.finish(is_last=True)
            else:
                record.move_to(RoundState.SELECTING)

    def select(self, job: RoundJob) -> None:
        """Pick the batch and write it as tasks."""
        answer = self._pick(job)
        picks = [
            Pick(item_id=ItemId(item), score=score, origin=origin)
            for item, score, origin in zip(answer.ids, answer.scores, answer.origins, strict=True)
        ]
        reach("scheduler.round.after_select")
        with recording(self._store, job) as record:
            check_not_archived(record.campaign)
            _check_picks(job, picks, tasks.rounds_of(record.session, job.campaign_id, [p.item_id for p in picks]))
            # Somebody may have labelled one of them, unasked, since the snapshot.
            labelled = labels.known_items(
                record.session, job.campaign_id, [pick.item_id for pick in picks], purpose=LabelPurpose.TRAINING
            )
            tasks.add(
                record.session,
                job.campaign_id,
                job.number,
                picks,
                labelled=labelled,
                audience=Audience.PEOPLE if self._oracles[oracle_of(job.spec)] is None else Audience.ORACLE,
                annotations=job.spec.annotation.annotations or 1,
            )
            record.round.picks = len(picks)
            if answer.HasField("candidates"):
                record.round.candidates = answer.candidates.SerializeToString()
            record.round.strategy = answer.strategy
            record.round.strategy_reason = answer.strategy_reason
            record.round.pool_version = answer.pool_version or record.round.pool_version
            record.add_seconds(scheduler_pb2.PhaseSeconds(expand=answer.expand_seconds, score=answer.score_seconds))
            record.move_to(RoundState.LABELLING)
        reach("scheduler.round.after_picks")

    def _labelled(self, job: RoundJob) -> dict[ItemId, tuple[int, ...]]:
        with self._store.reading() as session:
            return labels.effective(session, job.campaign_id, purpose=LabelPurpose.TRAINING, until=job.snapshot)

    def _pick(self, job: RoundJob) -> learner_pb2.SelectResponse:
        if job.batch == 0:
            return learner_pb2.SelectResponse()
        labelled = {} if job.kind == RoundKind.SEED else self._labelled(job)
        if not labelled:  # then a candidate pool has nothing to grow from
            return self._seeder.draw(job)
        header = self._select_header(job)
        if job.kind == RoundKind.WITHOUT_MODEL:
            _do_without_model(header, job.spec)
        reason = ""
        if header.without_model:
            reason = f"labels of one class only: {why_alike(job.spec, labelled.values())}"
        answer = self._select(job, header, labelled)
        answer.strategy = answer.strategy or header.strategy.name
        answer.strategy_reason = answer.strategy_reason or reason
        return answer

    def _select_header(self, job: RoundJob) -> learner_pb2.SelectHeader:
        return learner_pb2.SelectHeader(
            campaign=job.campaign,
            round=job.number,
            pool=job.spec.pool,
            strategy=strategy_to_ask_for(job.spec),
            policy=job.spec.policy,
            batch_size=job.batch,
            exploration=job.spec.exploration,
            fill_random=job.spec.fill != scheduler_pb2.FILL_NONE,
            seed=derive_seed(job.spec.seed, job.number, Purpose.SELECT),
        )

    def _select(
        self, job: RoundJob, header: learner_pb2.SelectHeader, labelled: Mapping[ItemId, Sequence[int]]
    ) -> learner_pb2.SelectResponse:
        expanding = expanding_classes_of(job.spec)
        expand_from = [expanding is None or not expanding.isdisjoint(classes) for classes in labelled.values()]
        excluded = [item for item in self._handed_out(job) if item not in labelled]
        return self._learner.select(
            header, list(labelled), expand_from, excluded, classes=[sorted(classes) for classes in labelled.values()]
        )

    def _handed_out(self, job: RoundJob) -> list[ItemId]:
        with self._store.reading() as session:
            return tasks.items_before(session, job.campaign_id, job.number)


def _do_without_model(header: learner_pb2.SelectHeader, spec: scheduler_pb2.CampaignSpec) -> None:
    header.without_model = True
    header.task = spec.task
    header.classes.extend(spec.classes)
    # Whatever the campaign's fill: a batch that comes out empty may be the last, as nobody would label anything then.
    header.fill_random = True
    if needs_model(spec):
        header.strategy.CopyFrom(common_pb2.StrategySpec(name=FALLBACK))
        if header.policy.growth == common_pb2.CANDIDATE_GROWTH_PICK:  # which a batch as a whole cannot have
            header.policy.growth = common_pb2.CANDIDATE_GROWTH_ROUND


def _examples(labelled: Mapping[ItemId, Sequence[int]]) -> LabelledItems:
    return LabelledItems(ids=list(labelled), labels=list(labelled.values()))


def _check_picks(job: RoundJob, picks: Sequence[Pick], handed_out: Mapping[ItemId, int]) -> None:
    if handed_out:
        item, number = next(iter(handed_out.items()))
        raise FailedPrecondition(f"the learner picked {item!r}, which round {number} had handed out")
    if len(picks) > job.batch or len({pick.item_id for pick in picks}) < len(picks):
        raise FailedPrecondition(
            f"the learner picked {len(picks):,} items, or one twice, where {job.batch:,} were asked"
        )
