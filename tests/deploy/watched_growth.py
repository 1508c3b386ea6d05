"""Grow the candidate pools of three campaigns while a Prometheus watches: `python -m tests.deploy.watched_growth`.

What it leaves in --folder is drawn by `python -m deploy.grafana.draw`; see docs/dashboards.md.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sealpool.cli.demo_data import Labelled, labelled_text
from sealpool.cli.records import read_chunks
from sealpool.client import IndexClient
from sealpool.types import ItemId, Items, Payload, Vectors
from sealpool.v1 import common_pb2, index_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.deploy.watched_services import Watched, watched_services

POOL = "intents"
HELD_OUT_POOL = "intents-held-out"


@dataclass(frozen=True, slots=True)
class Growth:
    """A campaign for one intent among all others, and what it expands from."""

    intent: str
    k: int
    from_positives: bool

    def spec(self, rounds: int) -> pb.CampaignSpec:
        name = f"{self.intent.replace('_', '-')}-{'positives' if self.from_positives else 'all'}-k{self.k}"
        return pb.CampaignSpec(
            name=name,
            pool=POOL,
            evaluation_pool=HELD_OUT_POOL,
            task=common_pb2.TASK_KIND_BINARY,
            classes=["other", self.intent],
            strategy=common_pb2.StrategySpec(name="entropy"),
            policy=common_pb2.PolicySpec(name="seals", k=self.k),
            expand_from_classes=[self.intent] if self.from_positives else [],
            seeding=pb.SeedingSpec(kind=pb.SEEDING_KIND_CONCEPT, positives=5),
            seed_size=100,
            batch_size=25,
            budget=100 + 25 * rounds,
            seed=7,
            oracle=pb.OracleSpec(name="dataset", other_class="other"),
            stopping=pb.StoppingSpec(stop_set=500, kappa=0.99),
        )


CAMPAIGNS = [Growth("translate", 100, True), Growth("translate", 100, False), Growth("travel_alert", 30, False)]


def grow(watched: Watched, *, rounds: int, pause_s: float) -> None:
    """Run the campaigns turn by turn, and pause after each turn so that curves can be told from steps."""
    specs = [one.spec(rounds) for one in CAMPAIGNS]
    for spec in specs:
        watched.scheduler.create_campaign(spec)
    for _ in range(rounds + 1):
        for spec in specs:
            watched.scheduler.run_round(spec.name)
        time.sleep(pause_s)
    for spec in specs:
        watched.index.get_reachability(POOL, spec.name)
    time.sleep(pause_s)


def upload(index: IndexClient, pool: str, some: Labelled, vectors: Vectors) -> None:
    """Make a pool of labelled texts and their vectors, (n, d), in the same order."""
    index.create_pool(index_pb2.PoolSpec(name=pool, dimension=vectors.shape[1], metric=index_pb2.METRIC_COSINE))
    payloads = [
        Payload(text=text, metadata={"labels": list(labels)})
        for text, labels in zip(some.texts, some.labels, strict=True)
    ]
    index.upsert(pool, Items(ids=[ItemId(item) for item in some.ids], vectors=vectors, payloads=payloads))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="labelled texts, as clinc150.jsonl.gz")
    parser.add_argument("--vectors", type=Path, required=True, help=".npy with their embeddings, in their order")
    parser.add_argument("--folder", type=Path, required=True, help="where the services and Prometheus keep their data")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--pause-s", type=float, default=10.0)
    told = parser.parse_args()
    told.folder.mkdir(parents=True)
    data = labelled_text(told.data, seed=1)
    vectors = np.load(told.vectors).astype(np.float32)
    place = {record.id: at for at, record in enumerate(r for chunk in read_chunks(told.data) for r in chunk.records)}
    with watched_services(told.folder) as watched:
        for pool, some in ((POOL, data.pool), (HELD_OUT_POOL, data.held_out)):
            upload(watched.index, pool, some, vectors[[place[item] for item in some.ids]])
        grow(watched, rounds=told.rounds, pause_s=told.pause_s)


if __name__ == "__main__":
    main()
