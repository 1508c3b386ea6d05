"""A campaign of which all is known: who labels it knows every answer, so its rounds are the same each time."""

from dataclasses import dataclass

import numpy as np

from sealpool.client import ClientOptions, IndexClient, SchedulerClient
from sealpool.types import ItemId, Items, Payload
from sealpool.v1 import common_pb2, index_pb2, scheduler_pb2

POOL, ALIAS, CAMPAIGN = "reports@1", "reports", "topics"
CLASSES = ("about it", "not about it")
_ITEMS = 3_000
_VECTORS = np.random.default_rng(7).standard_normal((_ITEMS, 8), dtype=np.float32)
_IDS = [ItemId(f"report-{number:04}") for number in range(_ITEMS)]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the services say of the campaign, as far as a restore must bring it back."""

    labels: list[tuple[str, tuple[str, ...], str]]
    rounds: list[tuple[int, int, int]]
    candidates: frozenset[str]


class Desk:
    """Who makes the pool and the campaign, runs its rounds and labels what they pick."""

    def __init__(self, index: str, scheduler: str, options: ClientOptions | None = None) -> None:
        self._index = index
        self._scheduler = scheduler
        self._options = options or ClientOptions()

    def begin(self) -> None:
        """Make a pool, an alias of it, and a campaign on that with ten labels."""
        payloads = [Payload(text=f"The text of {item}.") for item in _IDS]
        with self.index() as index, self.scheduler() as scheduler:
            index.create_pool(index_pb2.PoolSpec(name=POOL, dimension=_VECTORS.shape[1]))
            index.upsert(POOL, Items(ids=_IDS, vectors=_VECTORS, payloads=payloads))
            index.set_alias(ALIAS, POOL)
            spec = scheduler_pb2.CampaignSpec(
                name=CAMPAIGN,
                pool=ALIAS,
                task=common_pb2.TASK_KIND_MULTICLASS,
                classes=CLASSES,
                budget=1_000,
                batch_size=10,
                policy=common_pb2.PolicySpec(name="seals", k=10),
            )
            scheduler.create_campaign(spec)
            scheduler.submit_labels(CAMPAIGN, {item: [_answer(item)] for item in _IDS[:10]}, annotator="ada")

    def run_round(self) -> list[str]:
        """Run a round, label what it picked, and return that."""
        with self.scheduler() as scheduler:
            scheduler.run_round(CAMPAIGN)
            tasks = scheduler.lease_tasks(CAMPAIGN, annotator="ada", max_tasks=100).tasks
            scheduler.submit_labels(
                CAMPAIGN, {task.item_id: [_answer(task.item_id)] for task in tasks}, annotator="ada"
            )
        return sorted(task.item_id for task in tasks)

    def known(self) -> Known:
        """Return what the services know."""
        with self.index() as index, self.scheduler() as scheduler:
            return Known(
                labels=[(one.item_id, tuple(one.classes), one.annotator) for one in scheduler.list_labels(CAMPAIGN)],
                rounds=[(one.number, one.state, one.picks) for one in scheduler.list_rounds(CAMPAIGN)],
                candidates=frozenset(item for some in index.list_candidates(ALIAS, CAMPAIGN) for item in some.ids),
            )

    def text(self, item: str) -> str:
        """Return an item's text, from the pool that the alias stands for."""
        with self.index() as index:
            payloads = index.get_items(ALIAS, [ItemId(item)], payloads=True).payloads
        assert payloads is not None
        return str(payloads[0].text)

    def index(self) -> IndexClient:
        """Connect to the index server."""
        return IndexClient(self._index, options=self._options)

    def scheduler(self) -> SchedulerClient:
        """Connect to the scheduler."""
        return SchedulerClient(self._scheduler, options=self._options)


def _answer(item: str) -> str:
    return CLASSES[int(_VECTORS[int(item.rpartition("-")[2]), 0] < 0.3)]
