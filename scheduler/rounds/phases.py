"""What a round does in each of its states."""

from collections.abc import Callable, Mapping, Sequence

from scheduler.domain.labels import why_alike
from scheduler.domain.seeds import Purpose, derive_seed
from scheduler.domain.spec import expanding_classes_of, oracle_of
from scheduler.domain.states import RoundKind, RoundState
from scheduler.domain.strategy_spec import FALLBACK, needs_model, strategy_to_ask_for
from scheduler.labelling import commit_labels
from scheduler.oracles.port import Oracle
from scheduler.oracles.registry import OracleRegistry
from scheduler.ports import Index, Learner
from scheduler.rounds.recording import Recording, RoundJob, check_not_archived, recording
from scheduler.storage import campaigns, labels, tasks
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
        self._index = index
        self._oracles = oracles
        self.by_state: Mapping[RoundState, Phase] = {
            RoundState.TRAINING: self.train,
            RoundState.EVALUATING: self.evaluate,
            RoundState.SELECTING: self.select,
            RoundState.LABELLING: self.label,
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
        self._load_held_out(job)
        answer = self._evaluate(job)
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
                record.session, job.campaign_id, [pick.item_id for pick in picks], held_out=False
            )
            tasks.add(record.session, job.campaign_id, job.number, picks, labelled=labelled)
            record.round.picks = len(picks)
            if answer.HasField("candidates"):
                record.round.candidates = answer.candidates.SerializeToString()
            record.round.strategy = answer.strategy
            record.round.strategy_reason = answer.strategy_reason
            record.round.pool_version = answer.pool_version or record.round.pool_version
            record.add_seconds(scheduler_pb2.PhaseSeconds(expand=answer.expand_seconds, score=answer.score_seconds))
            record.move_to(RoundState.LABELLING)
        reach("scheduler.round.after_picks")

    def label(self, job: RoundJob) -> None:
        """Let the campaign's own oracle, if it has one, label every open task, and end the round."""
        oracle = self._oracle(job)
        given: Mapping[ItemId, tuple[int, ...]] = {}
        gone: Sequence[ItemId] = ()
        if oracle is not None:
            with self._store.reading() as session:
                waiting = tasks.outstanding(session, job.campaign_id)
            given = oracle.label(job.spec, waiting)
            gone = self._gone(job, [item for item in waiting if item not in given])
        with recording(self._store, job) as record:
            check_not_archived(record.campaign)
            tasks.withdraw_items(record.session, job.campaign_id, gone)
            wanted = _still_wanted(job, record, given)
            if oracle is not None and wanted:
                commit_labels(
                    record.session,
                    record.campaign,
                    wanted,
                    annotator=oracle.annotator,
                    held_out=False,
                    now=record.now,
                )
            record.finish(is_last=_pool_is_exhausted(job, record))
        reach("scheduler.round.after_label")

    def _gone(self, job: RoundJob, items: Sequence[ItemId]) -> list[ItemId]:
        """Return those of `items` that the pool no longer has: nobody can label them."""
        if not items:
            return []
        found = self._index.get_items(job.spec.pool, items, vectors=False, allow_missing=True)
        return sorted(set(items).difference(found.ids))

    def _labelled(self, job: RoundJob) -> dict[ItemId, tuple[int, ...]]:
        with self._store.reading() as session:
            return labels.effective(session, job.campaign_id, held_out=False, until=job.snapshot)

    def _oracle(self, job: RoundJob) -> Oracle | None:
        return self._oracles[oracle_of(job.spec)]

    def _load_held_out(self, job: RoundJob) -> None:
        oracle = self._oracle(job)
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
                    annotator=oracle.annotator,
                    held_out=True,
                    now=record.now,
                )
            record.campaign.held_out_loaded = True

    def _evaluate(self, job: RoundJob) -> learner_pb2.EvaluateResponse | None:
        if not job.spec.evaluation_pool:
            return None
        with self._store.reading() as session:
            # Not those of the snapshot: they do not touch the picks, and the latest measure best.
            until = campaigns.get(session, job.campaign).last_sequence
            held_out = labels.effective(session, job.campaign_id, held_out=True, until=until)
        if not held_out:
            return None
        header = learner_pb2.EvaluateHeader(campaign=job.campaign, round=job.number, pool=job.spec.evaluation_pool)
        return self._learner.evaluate(header, _examples(held_out))

    def _pick(self, job: RoundJob) -> learner_pb2.SelectResponse:
        if job.batch == 0:
            return learner_pb2.SelectResponse()
        labelled = {} if job.kind == RoundKind.SEED else self._labelled(job)
        if not labelled:  # then a candidate pool has nothing to grow from
            return self._sample(job)
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

    def _sample(self, job: RoundJob) -> learner_pb2.SelectResponse:
        """Draw the batch at random, from the whole pool: the seed set, or another while no item is labelled."""
        exclude = list(dict.fromkeys([*self._labelled(job), *self._handed_out(job)]))
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


def _still_wanted(
    job: RoundJob, record: Recording, given: Mapping[ItemId, tuple[int, ...]]
) -> dict[ItemId, tuple[int, ...]]:
    """Return those labels that the budget still has room for and that nobody gave while the oracle was asked."""
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


def _check_picks(job: RoundJob, picks: Sequence[Pick], handed_out: Mapping[ItemId, int]) -> None:
    if handed_out:
        item, number = next(iter(handed_out.items()))
        raise FailedPrecondition(f"the learner picked {item!r}, which round {number} had handed out")
    if len(picks) > job.batch or len({pick.item_id for pick in picks}) < len(picks):
        raise FailedPrecondition(
            f"the learner picked {len(picks):,} items, or one twice, where {job.batch:,} were asked"
        )
