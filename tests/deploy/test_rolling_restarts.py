"""Every service is restarted again and again under load: no call of the client library fails, and nothing is lost."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sealpool.client import IndexClient
from sealpool.v1 import index_pb2
from tests.contract.scheduler.postgres import binaries, fresh_database, running_postgres
from tests.deploy.rolling_callers import (
    Annotator,
    Considerer,
    Desk,
    Expander,
    RoundRunner,
    Scanner,
    Searcher,
    Uploader,
    Watcher,
)
from tests.deploy.rolling_data import POOL, POOL_ITEMS, make_items
from tests.deploy.rolling_load import Caller, Load
from tests.deploy.rolling_names import NameServer
from tests.deploy.rolling_services import Cluster, Deployment, StatefulPod

RESTARTS = int(os.environ.get("SEALPOOL_RESTARTS", "2"))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    if binaries() is None:
        pytest.fail("PostgreSQL is not installed: apt-get install postgresql")
    with running_postgres() as server, NameServer() as names:
        cluster = Cluster(tmp_path, names, database_url=fresh_database(server, "rolling"))
        try:
            cluster.start()
            yield cluster
            cluster.stop()
        finally:
            cluster.kill()


@contextlib.contextmanager
def callers_of(cluster: Cluster) -> Iterator[tuple[list[Caller], Desk]]:
    items = make_items("item", POOL_ITEMS, seed=1)
    with IndexClient(cluster.index.target) as client:
        client.create_pool(index_pb2.PoolSpec(name=POOL, dimension=8))
        client.upsert(POOL, items)
    desk = Desk(cluster.scheduler.target, items)
    runner = RoundRunner(cluster.scheduler.target)
    callers: list[Caller] = [
        Searcher(cluster.index.target, items),
        Uploader(cluster.index.target),
        Scanner(cluster.index.target, cluster.learner.target, items, runner.undisturbed),
        Expander(cluster.index.target, items),
        runner,
        Annotator("ada", cluster.scheduler.target, desk),
        Annotator("bob", cluster.scheduler.target, desk),
        Considerer(cluster.scheduler.target),
        Watcher(cluster.scheduler.target, desk),
    ]
    yield callers, desk
    for caller in callers:
        caller.close()
    desk.close()


def restart(service: StatefulPod | Deployment, load: Load) -> None:
    for _ in range(RESTARTS):
        service.restart()
        load.wait_for_calls()


@pytest.mark.timeout(300 + 60 * RESTARTS)
def test_no_call_fails_and_nothing_is_lost_while_every_service_is_restarted(cluster: Cluster) -> None:
    with callers_of(cluster) as (callers, desk):
        load = Load(callers)
        with load.running(), ThreadPoolExecutor(len(cluster.services)) as operators:
            for restarted in [operators.submit(restart, service, load) for service in cluster.services]:
                restarted.result()
        for caller in callers:
            caller.check()
        desk.check()
    longest_s = {name: round(seconds, 2) for name, seconds in load.longest_s.items()}
    drained_s = {service.module: round(max(service.drained), 2) for service in cluster.services}
    figures = {"restarts": RESTARTS, "calls": load.calls, "longest_s": longest_s, "longest_drain_s": drained_s}
    sys.stdout.write(f"{json.dumps(figures)}\n")  # shown by pytest -s
