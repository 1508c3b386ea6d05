"""A soak: one index server, several clients with mixed load, and at the end everything held against their models."""

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from sealpool.v1 import index_pb2, index_pb2_grpc
from tests.soak.client import DIMENSION
from tests.soak.memory import Trend, Watch, trend
from tests.support.index_workload import State, read_state
from tests.support.processes import ServiceProcess

POOLS = {"exact": "flat", "graph": "hnsw"}


class WatchedServer(ServiceProcess):
    """An index server whose process can be looked at."""

    @property
    def process_id(self) -> int:
        """The id of the process, which was started."""
        if self._process is None:
            raise AssertionError(f"{self.module} was not started")
        return self._process.pid


@dataclass(slots=True)
class Outcome:
    """What a soak found."""

    faults: list[str] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    trend: Trend | None = None

    def table(self) -> str:
        """Return the calls, how long they took, and how memory went."""
        lines = [f"{'call':<16}{'calls':>8}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}"]
        for name, seconds in sorted(self.seconds.items()):
            p50, p99, most = 1000 * np.quantile(seconds, [0.5, 0.99, 1.0])
            lines.append(f"{name:<16}{len(seconds):>8}{p50:>10.1f}{p99:>10.1f}{most:>10.1f}")
        if self.trend is not None:
            lines += self.trend.lines()
        return "\n".join([*lines, *(f"WRONG: {fault}" for fault in self.faults)])


def soak(folder: Path, *, seconds: float, clients: int, seed: int) -> Outcome:
    """Run a soak below `folder` and return what it found."""
    server = WatchedServer("index_server", folder, "--log-level", "warning", "--search-threads", "1")
    server.start()
    outcome = Outcome()
    try:
        with grpc.insecure_channel(server.address) as channel:
            stub = index_pb2_grpc.IndexServiceStub(channel)
            _make_pools(stub)
            watch = Watch(server.process_id, every_s=max(0.25, seconds / 400))
            watch.start()
            results = _load(server.address, folder, seconds=seconds, clients=clients, seed=seed)
            watch.stop()
            outcome.faults += _join(results, outcome, read_state(stub))
            outcome.trend = trend(watch.samples)
            outcome.faults += outcome.trend.faults()
        if server.exit_code is not None:
            outcome.faults.append(f"the server ended with {server.exit_code}")
    finally:
        server.kill()
    return outcome


def _make_pools(stub: index_pb2_grpc.IndexServiceStub) -> None:
    for name, engine in POOLS.items():
        spec = index_pb2.PoolSpec(name=name, dimension=DIMENSION, engine=engine, metric=index_pb2.METRIC_L2)
        stub.CreatePool(index_pb2.CreatePoolRequest(spec=spec), timeout=10)


def _load(address: str, folder: Path, *, seconds: float, clients: int, seed: int) -> list[dict[str, Any]]:
    """Run clients until all are done, then let them settle, and return what each wrote down."""
    results = [folder / f"client-{number}.json" for number in range(clients)]
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.soak.client",
                address,
                f"c{number}",
                str(seconds),
                str(seed + number),
                result,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, result in enumerate(results)
    ]
    for process in processes:
        if process.stdout is not None:
            process.stdout.readline()
    for process in processes:
        process.communicate("go\n", timeout=120)
    return [json.loads(result.read_text()) for result in results]


def _join(results: Iterable[dict[str, Any]], outcome: Outcome, state: State) -> list[str]:
    """Add up what clients wrote down, and return where the server's state is another."""
    results = list(results)
    faults = [result["fault"] for result in results if result["fault"]]
    for result in results:
        for name, seconds in result["seconds"].items():
            outcome.seconds.setdefault(name, []).extend(seconds)
    for pool in POOLS:
        wanted: dict[str, list[float]] = {}
        for result in results:
            wanted |= result["items"][pool]
        found = {item_id: vector for item_id, (vector, _) in state[pool]["items"].items()}
        wrong = sorted(item_id for item_id in wanted.keys() | found.keys() if wanted.get(item_id) != found.get(item_id))
        if wrong:
            faults.append(f"{pool}: {len(wrong)} items are not as last written: {wrong[:5]}")
        faults += _wrong_campaigns(pool, results, state[pool])
    return faults


def _wrong_campaigns(pool: str, results: list[dict[str, Any]], state: State) -> list[str]:
    faults = []
    for number, result in enumerate(results):
        campaign = result["campaigns"][pool]
        if not campaign["version"] or result["fault"]:
            continue
        found = state["campaigns"].get(f"c{number}", {})
        if sorted(found.get("vectors", ())) != campaign["held"] or found["version"] != campaign["version"]:
            faults.append(f"{pool}: the candidate pool of c{number} is not the sum of the differences it was told")
        if found.get("labelled") != len(campaign["labelled"]):
            faults.append(
                f"{pool}: c{number} told {len(campaign['labelled'])} labels, {found.get('labelled')} are known"
            )
    return faults
