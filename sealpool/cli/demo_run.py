"""The demo's two campaigns on running services: active learning, and random sampling under the same seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sealpool.cli.campaign_spec import task_kind
from sealpool.cli.demo_data import DemoData, Labelled, batches
from sealpool.client import IndexClient, SchedulerClient
from sealpool.errors import FailedPrecondition, InternalError, InvalidArgument
from sealpool.types import ItemId, Items, Payload
from sealpool.v1 import common_pb2, index_pb2, scheduler_pb2
from sealpool.vocabulary.strategies import STRATEGIES, Need, resolve_strategy

POOL = "demo"
HELD_OUT_POOL = "demo-held-out"

_UPLOAD_ITEMS = 5_000


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoPlan:
    """Sizes of a demo campaign."""

    rounds: int
    seed_size: int
    batch: int
    k: int
    exploration: float
    strategy: str
    seed: int

    @property
    def budget(self) -> int:
        """Labels in all."""
        return self.seed_size + self.rounds * self.batch


def plan_demo(
    data: DemoData, *, rounds: int, batch: int | None, k: int | None, exploration: float, strategy: str, seed: int
) -> DemoPlan:
    """Return sizes that fit the data, where the caller gave none.

    A batch, and the seed set, is two labels a class, at least 20, and at most so many that the budget stays within
    half of the pool. k is the pool's size over the budget, 10 to 100: if no two labelled items shared a neighbour,
    all of them together would just reach the whole pool.

    Raises
    ------
    InvalidArgument
        The pool is too small for that many rounds.
    """
    chosen = batch or min(max(20, 2 * len(data.classes)), len(data.pool) // (2 * (rounds + 1)))
    budget = chosen * (rounds + 1)
    if chosen < 1 or budget > len(data.pool):
        raise InvalidArgument("rounds", f"{rounds} rounds need more than the pool's {len(data.pool):,} items")
    return DemoPlan(
        rounds=rounds,
        seed_size=chosen,
        batch=chosen,
        k=k or min(max(10, len(data.pool) // budget), 100),
        exploration=exploration,
        strategy=strategy,
        seed=seed,
    )


def upload(index: IndexClient, data: DemoData, *, on_progress: Callable[[int], None]) -> None:
    """Make the two pools and fill them."""
    done = 0
    for name, items in ((POOL, data.pool), (HELD_OUT_POOL, data.held_out)):
        if items.vectors is None:
            raise FailedPrecondition("the texts have no vectors yet")
        spec = index_pb2.PoolSpec(name=name, dimension=items.vectors.shape[1], metric=index_pb2.METRIC_COSINE)
        index.create_pool(spec)
        for some in batches(items, _UPLOAD_ITEMS):
            index.upsert(name, _items(some))
            done += len(some)
            on_progress(done)


def _items(some: Labelled) -> Items:
    return Items(
        ids=[ItemId(item_id) for item_id in some.ids],
        vectors=some.vectors,
        payloads=[
            Payload(text=text, metadata={"labels": list(labels)})
            for text, labels in zip(some.texts, some.labels, strict=True)
        ],
    )


def campaign_spec(name: str, data: DemoData, plan: DemoPlan, *, active: bool) -> scheduler_pb2.CampaignSpec:
    """Return the spec of the active campaign, or of the random one, which sees the whole pool."""
    return scheduler_pb2.CampaignSpec(
        name=name,
        pool=POOL,
        evaluation_pool=HELD_OUT_POOL,
        task=task_kind(data.task),
        classes=data.classes,
        model=_model(plan.strategy),
        strategy=common_pb2.StrategySpec(name=plan.strategy if active else "random"),
        policy=common_pb2.PolicySpec(name="seals", k=plan.k) if active else common_pb2.PolicySpec(name="full"),
        exploration=plan.exploration if active else 0.0,
        batch_size=plan.batch,
        budget=plan.budget,
        seed=plan.seed,
        seed_size=plan.seed_size,
        oracle=scheduler_pb2.OracleSpec(name="dataset"),
    )


def _model(strategy: str) -> common_pb2.ModelSpec:
    """Return the model of both campaigns: the default one, with an estimator that draws if the strategy needs that."""
    entry = STRATEGIES.get(resolve_strategy(strategy) or "")
    if entry is None or Need.SAMPLES not in entry.needs:
        return common_pb2.ModelSpec()
    return common_pb2.ModelSpec(uncertainty=common_pb2.UncertaintySpec(estimator="laplace"))


def run_campaign(
    scheduler: SchedulerClient,
    spec: scheduler_pb2.CampaignSpec,
    *,
    on_round: Callable[[scheduler_pb2.Round, int], None],
) -> list[scheduler_pb2.Round]:
    """Run a campaign to its end; return its rounds. `on_round` gets each round and the labels there are after it."""
    scheduler.create_campaign(spec)
    state = scheduler_pb2.CAMPAIGN_STATE_ACTIVE
    while state != scheduler_pb2.CAMPAIGN_STATE_COMPLETED:
        answer = scheduler.run_round(spec.name)
        state = answer.campaign_state
        if answer.round.state == scheduler_pb2.ROUND_STATE_FAILED:
            raise InternalError(f"round {answer.round.number} of {spec.name} failed: {answer.round.error}")
        on_round(answer.round, scheduler.get_campaign(spec.name).labels)
    return scheduler.list_rounds(spec.name)


Figures = Mapping[str, int | float | Mapping[str, float]]


def figures_of(rounds: Sequence[scheduler_pb2.Round]) -> tuple[list[Figures], Figures]:
    """Return the figures of each round that picked a batch with a model, and those of the last model.

    The last model has the whole budget's labels and nothing left to pick.
    """
    with_model = [_figures(one) for one in rounds if one.HasField("quality")]
    return with_model[:-1], with_model[-1]


def _figures(one: scheduler_pb2.Round) -> Figures:
    return {
        "round": one.number,
        "labels": one.labels,
        "candidates": one.candidates.size,
        "pool_share": one.candidates.pool_share,
        "accuracy": one.quality.accuracy,
        "mean_average_precision": one.quality.mean_average_precision,
        "seconds": {"expand": one.seconds.expand, "train": one.seconds.train, "score": one.seconds.score},
    }
