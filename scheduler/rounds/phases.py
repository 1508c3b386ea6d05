"""What a round does in each of its states."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from scheduler.domain.annotation_spec import annotations_of
from scheduler.domain.evaluation_spec import holds_out
from scheduler.domain.labels import why_alike
from scheduler.domain.seeds import Purpose, derive_seed
from scheduler.domain.spec import expanding_classes_of, oracle_of
from scheduler.domain.states import Audience, LabelPurpose, RoundKind, RoundState
from scheduler.domain.strategy_spec import FALLBACK, needs_model, strategy_to_ask_for
from scheduler.labelled_set import LabelledSet, labelled_set, training_set
from scheduler.oracles.registry import OracleRegistry
from scheduler.ports import Index, Learner
from scheduler.rounds.evaluating import Evaluator
from scheduler.rounds.handed_out import handed_out_of
from scheduler.rounds.holding_out import HeldOutDrawer
from scheduler.rounds.oracle_labelling import OracleLabelling
from scheduler.rounds.recording import RoundJob, check_not_archived, recording
from scheduler.rounds.seeding import Seeder
from scheduler.rounds.surveying import Surveyor
from scheduler.rounds.testing_actively import ActiveTester
from scheduler.storage import drawn_items, labels, synthetic, tasks
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
        self._drawer = HeldOutDrawer(store=store, index=index, oracles=oracles)
        self._seeder = Seeder(store=store, index=index, learner=learner)
        self._evaluator = Evaluator(store=store, learner=learner, oracles=oracles)
        self._tester = ActiveTester(store=store, index=index, learner=learner, oracles=oracles)
        self._surveyor = Surveyor(store=store, index=index, learner=learner)
        labelling = OracleLabelling(store=store, index=index, oracles=oracles)
        self.by_state: Mapping[RoundState, Phase] = {
            RoundState.TRAINING: self.train,
            RoundState.EVALUATING: self.evaluate,
            RoundState.SELECTING: self.select,
            RoundState.LABELLING: labelling.label,
        }

    def train(self, job: RoundJob) -> None:
        """Train on the whole labelled set of the snapshot."""
        self._drawer.draw(job)
        header = learner_pb2.TrainHeader(
            campaign=job.campaign,
            round=job.number,
            pool=job.spec.pool,
            task=job.spec.task,
            classes=job.spec.classes,
            model=job.spec.model,
            seed=derive_seed(job.spec.seed, job.number, Purpose.TRAIN),
        )
        with self._store.reading() as session:
            labelled = training_set(session, job.campaign_id, job.spec, until=job.snapshot)
        result = self._learner.train(header, LabelledItems(ids=list(labelled), labels=list(labelled.values())))
        reach("scheduler.round.after_train")
        with recording(self._store, job) as record:
            record.round.labels = result.examples
            record.round.pool_version = result.pool_version
            record.round.notes = list(result.notes)
            record.add_seconds(scheduler_pb2.PhaseSeconds(train=result.train_seconds))
            record.move_to(RoundState.EVALUATING)

    def evaluate(self, job: RoundJob) -> None:
        """Measure the model on the held-out labels there are, and survey it; the last round ends with that.

        So does one whose survey ends the campaign: nothing is picked that nobody would label.
        """
        answer = self._evaluator.evaluate(job)
        tested = self._tester.test(job)
        quality = None if answer is None else answer.quality
        surveyed = self._surveyor.survey(job, quality, None if tested is None else tested.estimate)
        reach("scheduler.round.after_evaluate")
        with recording(self._store, job) as record:
            if answer is not None:
                record.round.quality = answer.quality.SerializeToString()
                record.add_seconds(scheduler_pb2.PhaseSeconds(evaluate=answer.seconds))
            if surveyed is not None:
                self._surveyor.record(record, surveyed)
            why_stop = surveyed.survey.reason if surveyed is not None and job.spec.stopping.complete else ""
            if tested is not None:
                self._tester.record(job, record, tested.without_choice() if why_stop else tested)
            if job.kind == RoundKind.FINAL or why_stop:
                record.finish(is_last=True, reason=f"it has learnt enough: {why_stop}" if why_stop else "")
            else:
                record.move_to(RoundState.SELECTING)

    def select(self, job: RoundJob) -> None:
        """Pick the batch and write it as tasks."""
        self._drawer.draw(job)
        barred = self._barred(job)
        answer = self._pick(job, barred)
        picks = [
            Pick(item_id=ItemId(item), score=score, origin=origin)
            for item, score, origin in zip(answer.ids, answer.scores, answer.origins, strict=True)
        ]
        reach("scheduler.round.after_select")
        _check_picks(job, picks, frozenset(barred))
        with recording(self._store, job) as record:
            check_not_archived(record.campaign)
            # A stream or an audit may have asked about one of them meanwhile.
            asked = handed_out_of(record.session, job.campaign_id, [pick.item_id for pick in picks])
            picks = [pick for pick in picks if pick.item_id not in asked]
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
                annotations=annotations_of(job.spec),
            )
            record.round.picks = len(picks)
            record.round.origin_counts = _origin_counts(picks)
            if answer.HasField("candidates"):
                record.round.candidates = answer.candidates.SerializeToString()
            record.round.strategy = answer.strategy
            record.round.strategy_reason = answer.strategy_reason
            record.round.pool_version = answer.pool_version or record.round.pool_version
            record.add_seconds(scheduler_pb2.PhaseSeconds(expand=answer.expand_seconds, score=answer.score_seconds))
            record.move_to(RoundState.LABELLING)
        reach("scheduler.round.after_picks")

    def _labelled(self, job: RoundJob) -> LabelledSet:
        with self._store.reading() as session:
            return labelled_set(session, job.campaign_id, job.spec, until=job.snapshot)

    def _pick(self, job: RoundJob, barred: Sequence[ItemId]) -> learner_pb2.SelectResponse:
        if job.batch == 0:
            return learner_pb2.SelectResponse()
        labelled = {} if job.kind == RoundKind.SEED else self._labelled(job)
        if not labelled:  # then a candidate pool has nothing to grow from
            return self._seeder.draw(job, barred)
        header = self._select_header(job)
        if job.kind == RoundKind.WITHOUT_MODEL:
            _do_without_model(header, job.spec)
        reason = ""
        if header.without_model:
            reason = f"labels of one class only: {why_alike(job.spec, labelled.values())}"
        answer = self._select(job, header, labelled, barred)
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
        self,
        job: RoundJob,
        header: learner_pb2.SelectHeader,
        labelled: Mapping[ItemId, Sequence[int]],
        barred: Sequence[ItemId],
    ) -> learner_pb2.SelectResponse:
        expanding = expanding_classes_of(job.spec)
        expand_from = [expanding is None or not expanding.isdisjoint(classes) for classes in labelled.values()]
        excluded = [item for item in barred if item not in labelled]
        return self._learner.select(
            header, list(labelled), expand_from, excluded, classes=[sorted(classes) for classes in labelled.values()]
        )

    def _barred(self, job: RoundJob) -> list[ItemId]:
        with self._store.reading() as session:
            # Of this round's number too: items of a stream, and made ones, that are asked about while it runs.
            handed_out = tasks.items_before(session, job.campaign_id, job.number + 1)
            held_out = drawn_items.held_out(session, job.campaign_id) if holds_out(job.spec) else []
            made = synthetic.made(session)
        return list(dict.fromkeys([*handed_out, *held_out, *made]))


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


def _origin_counts(picks: Sequence[Pick]) -> list[int]:
    counts = Counter(int(pick.origin) for pick in picks)
    return [counts[origin] for origin in range(max(counts, default=-1) + 1)]


def _check_picks(job: RoundJob, picks: Sequence[Pick], barred: AbstractSet[ItemId]) -> None:
    wrong = next((pick.item_id for pick in picks if pick.item_id in barred), None)
    if wrong is not None:
        raise FailedPrecondition(f"the learner picked {wrong!r}, which had been handed out, or is held out")
    if len(picks) > job.batch or len({pick.item_id for pick in picks}) < len(picks):
        raise FailedPrecondition(
            f"the learner picked {len(picks):,} items, or one twice, where {job.batch:,} were asked"
        )
