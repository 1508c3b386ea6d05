"""The first batch: items that are chosen before there is a label."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.domain.pseudonyms import is_pseudonym
from scheduler.domain.seeding_spec import positive_class_of, positives_of, seeding_of, seeding_strategy_of
from scheduler.domain.seeds import Purpose, derive_seed
from scheduler.domain.spec import metadata_field_of
from scheduler.domain.states import LabelPurpose, RoundKind
from scheduler.domain.turns import turn_by_turn
from scheduler.drawing import draw_real
from scheduler.embedding import embed_texts
from scheduler.oracles.dataset import labels_of
from scheduler.oracles.metadata_scan import MetadataScan
from scheduler.pools import read_pool
from scheduler.ports import Index, Learner
from scheduler.rounds.recording import RoundJob
from scheduler.storage import labels
from scheduler.storage.store import Store
from sealpool.client import Neighbors
from sealpool.errors import FailedPrecondition, NotFound
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, learner_pb2, scheduler_pb2

SUBPOOL = 10_000
"""Items drawn at random that a seeding strategy looks at: k-means on so many takes about a second."""
_MAX_NEIGHBOURS = 1_000
_MAX_ANSWER = 100_000  # neighbours in one answer of the index server

Search = Callable[[int], list[list[ItemId]]]
"""Finds the so many nearest items of each query, nearest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seeds:
    """What seeding chose. What is missing of the batch is drawn at random."""

    ids: Sequence[ItemId]
    scores: Sequence[float] = ()
    strategy: str
    reason: str


class Seeder:
    """Chooses batches while no item is labelled. The same campaign on the same pool gets the same."""

    def __init__(self, *, store: Store, index: Index, learner: Learner) -> None:
        self._store = store
        self._index = index
        self._learner = learner
        self._scan = MetadataScan(index)

    def draw(self, job: RoundJob, barred: Sequence[ItemId]) -> learner_pb2.SelectResponse:
        """Choose the seed set as the campaign says; another batch while no item is labelled is drawn at random.

        Parameters
        ----------
        barred
            Items that must not be chosen, beside the labelled ones.
        """
        taken = self._taken(job, barred)
        is_seed = job.kind == RoundKind.SEED
        chosen = self._choose(job, taken) if is_seed else Seeds(ids=(), strategy="random", reason="")
        ids = [*chosen.ids, *self._fill(job, len(chosen.ids), [*taken, *chosen.ids])]
        origin = common_pb2.PICK_ORIGIN_SEED if is_seed else common_pb2.PICK_ORIGIN_FILL
        filled = len(ids) - len(chosen.ids)
        note = f"; {filled:,} drawn at random" if chosen.ids and filled else ""
        return learner_pb2.SelectResponse(
            ids=ids,
            scores=[*(chosen.scores or [0.0] * len(chosen.ids)), *([0.0] * filled)],
            origins=[origin] * len(ids),
            strategy=chosen.strategy,
            strategy_reason=f"{chosen.reason}{note}",
            pool_version=read_pool(self._index, job.spec.pool).version,
        )

    def _taken(self, job: RoundJob, barred: Sequence[ItemId]) -> list[ItemId]:
        with self._store.reading() as session:
            labelled = labels.effective(session, job.campaign_id, purpose=LabelPurpose.TRAINING, until=job.snapshot)
        return list(dict.fromkeys([*labelled, *barred]))

    def _fill(self, job: RoundJob, chosen: int, exclude: Sequence[ItemId]) -> list[ItemId]:
        if chosen >= job.batch:
            return []
        seed = derive_seed(job.spec.seed, job.number, Purpose.SAMPLE)
        return draw_real(self._index, job.spec.pool, job.batch - chosen, seed=seed, exclude=exclude)

    def _choose(self, job: RoundJob, taken: Sequence[ItemId]) -> Seeds:
        match seeding_of(job.spec):
            case scheduler_pb2.SEEDING_KIND_EXAMPLES:
                return self._by_examples(job, frozenset(taken))
            case scheduler_pb2.SEEDING_KIND_QUERIES:
                return self._by_queries(job, frozenset(taken))
            case scheduler_pb2.SEEDING_KIND_STRATEGY:
                return self._by_strategy(job, taken)
            case scheduler_pb2.SEEDING_KIND_CONCEPT:
                return self._by_concept(job, frozenset(taken))
            case _:
                return Seeds(ids=(), strategy="random", reason="")

    def _by_examples(self, job: RoundJob, taken: frozenset[ItemId]) -> Seeds:
        examples = [ItemId(item) for item in job.spec.seeding.item_ids if not is_pseudonym(item)]
        if not examples:
            return Seeds(ids=(), strategy="random", reason="seeding by examples: all were erased")
        _check_present(self._index, job.spec.pool, examples)
        given = [item for item in examples if item not in taken][: job.batch]

        def search(k: int) -> list[list[ItemId]]:
            some = max(1, _MAX_ANSWER // k)
            return [
                nearest
                for start in range(0, len(examples), some)
                for nearest in _lists(self._index.search(job.spec.pool, k=k, ids=examples[start : start + some]))
            ]

        near = _nearest(search, len(examples), job.batch - len(given), taken | {*examples})
        reason = f"seeding by examples: {len(given):,} given, and {len(near):,} of their nearest neighbours"
        return Seeds(ids=[*given, *near], strategy="examples", reason=reason)

    def _by_queries(self, job: RoundJob, taken: frozenset[ItemId]) -> Seeds:
        seeding = job.spec.seeding
        vectors = embed_texts(self._learner, seeding.encoder, list(seeding.queries))

        def search(k: int) -> list[list[ItemId]]:
            return _lists(self._index.search(job.spec.pool, k=k, vectors=vectors))

        found = _nearest(search, len(vectors), job.batch, taken)
        queries = "the query" if len(vectors) == 1 else f"{len(vectors):,} queries"
        reason = f"seeding by queries: the items nearest to {queries}"
        return Seeds(ids=found, strategy="queries", reason=reason)

    def _by_strategy(self, job: RoundJob, taken: Sequence[ItemId]) -> Seeds:
        # A policy and a strategy of its own: with nothing labelled the learner draws what it looks at itself, and the
        # campaign's candidate pool begins with its first labels.
        policy = common_pb2.PolicySpec(name="random_subset", subpool_size=max(SUBPOOL, job.batch))
        header = learner_pb2.SelectHeader(
            campaign=job.campaign,
            round=job.number,
            pool=job.spec.pool,
            strategy=common_pb2.StrategySpec(name=seeding_strategy_of(job.spec)),
            policy=policy,
            batch_size=job.batch,
            seed=derive_seed(job.spec.seed, job.number, Purpose.SELECT),
            without_model=True,
            task=job.spec.task,
            classes=job.spec.classes,
        )
        answer = self._learner.select(header, [], [], taken)
        return Seeds(
            ids=[ItemId(item) for item in answer.ids],
            scores=list(answer.scores),
            strategy=answer.strategy or header.strategy.name,
            reason=f"seeding by strategy, among {answer.candidates.size:,} items drawn at random",
        )

    def _by_concept(self, job: RoundJob, taken: frozenset[ItemId]) -> Seeds:
        positive = positive_class_of(job.spec)
        labelled = labels_of(job.spec, self._scan.values(job.spec.pool, metadata_field_of(job.spec)))
        free = sorted(item for item in labelled if item not in taken)
        positives = [item for item in free if positive in labelled[item]]
        others = [item for item in free if positive not in labelled[item]]
        name = job.spec.classes[positive]
        if not positives:
            raise FailedPrecondition(f"seeding by concept: no item of the pool is of class {name!r}")
        rng = np.random.default_rng(derive_seed(job.spec.seed, job.number, Purpose.SAMPLE))
        found = _drawn(rng, positives, positives_of(job.spec, job.batch))
        rest = _drawn(rng, others, job.batch - len(found))
        reason = f"seeding by concept: {len(found):,} items of class {name!r}, and {len(rest):,} others"
        return Seeds(ids=[*found, *rest], strategy="concept", reason=reason)


def check_examples(index: Index, spec: scheduler_pb2.CampaignSpec) -> None:
    """Raise NotFound if the pool lacks one of the items that the seeding names; ask nothing where it names none."""
    if not spec.seeding.item_ids:
        return
    _check_present(index, spec.pool, [ItemId(item) for item in spec.seeding.item_ids])


def _check_present(index: Index, pool: str, asked: Sequence[ItemId]) -> None:
    present = set(index.get_items(pool, asked, vectors=False, allow_missing=True).ids)
    missing = [item for item in asked if item not in present]
    if missing:
        raise NotFound("item (spec.seeding.item_ids)", *missing, field="spec.seeding.item_ids")


def _nearest(search: Search, queries: int, count: int, taken: frozenset[ItemId]) -> list[ItemId]:
    """Take up to `count` nearest items turn by turn, looking farther where queries share neighbours."""
    if count <= 0:
        return []
    k = min(2 * (-(-count // queries)) + 10, _MAX_NEIGHBOURS)
    while True:
        lists = search(k)
        found = turn_by_turn(lists, count, taken=taken)
        if len(found) == count or k == _MAX_NEIGHBOURS or all(len(one) < k for one in lists):
            return found
        k = min(4 * k, _MAX_NEIGHBOURS)


def _lists(neighbours: Neighbors) -> list[list[ItemId]]:
    return [[item for item, _ in neighbours.of(query)] for query in range(len(neighbours.counts))]


def _drawn(rng: np.random.Generator, items: Sequence[ItemId], count: int) -> list[ItemId]:
    places = rng.choice(len(items), min(count, len(items)), replace=False)
    return [items[place] for place in places]
