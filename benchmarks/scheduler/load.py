"""Many clients at once, in a process of their own: python -m benchmarks.scheduler.load ADDRESS CAMPAIGN …."""

import argparse
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from itertools import islice

from sealpool.client import ClientOptions, SchedulerClient

_OPTIONS = ClientOptions(timeout_s=120.0, retry_for_s=0)
_LEASE = 200
_CONNECTIONS = 50


class Clients:
    """So many clients that begin together and work for the same time, over 50 connections at most."""

    def __init__(self, address: str, count: int, *, seconds: float) -> None:
        self._count = count
        self._seconds = seconds
        self._begin = threading.Barrier(count)
        self._connections = [SchedulerClient(address, options=_OPTIONS) for _ in range(min(count, _CONNECTIONS))]
        self._lock = threading.Lock()
        self.done = 0
        self.latencies: list[float] = []
        self.elapsed_s = 0.0

    def run(self, work: Callable[[SchedulerClient, str, Callable[[], bool], list[float]], int]) -> None:
        """Let every client work; `work` gets a client, its name, and whether to go on, and returns what it did."""
        for connection in self._connections:
            connection.list_campaigns()  # a connection is part of no figure
        threads = [threading.Thread(target=self._one, args=(work, number)) for number in range(self._count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for connection in self._connections:
            connection.close()

    def _one(self, work: Callable[[SchedulerClient, str, Callable[[], bool], list[float]], int], number: int) -> None:
        latencies: list[float] = []
        client = self._connections[number % len(self._connections)]
        self._begin.wait()
        started = time.perf_counter()
        name = f"client-{number}"
        done = work(client, name, lambda: time.perf_counter() < started + self._seconds, latencies)
        elapsed = time.perf_counter() - started
        with self._lock:
            self.done += done
            self.latencies += latencies
            self.elapsed_s = max(self.elapsed_s, elapsed)


def submit(campaign: str, classes: Sequence[str], labels_a_call: int) -> Callable[..., int]:
    """Return work that leases tasks in stocks, not timed, and hands in labels, timed call by call."""

    def work(client: SchedulerClient, name: str, goes_on: Callable[[], bool], latencies: list[float]) -> int:
        stock: list[str] = []
        done = 0
        while goes_on():
            if len(stock) < labels_a_call:
                leased = client.lease_tasks(campaign, annotator=name, max_tasks=max(_LEASE, labels_a_call)).tasks
                stock += [task.item_id for task in leased]
            some = {item: [classes[len(item) % len(classes)]] for item in islice(stock, labels_a_call)}
            if not some:
                break
            del stock[:labels_a_call]
            started = time.perf_counter()
            client.submit_labels(campaign, some, annotator=name)
            latencies.append(time.perf_counter() - started)
            done += len(some)
        return done

    return work


def lease(campaign: str, tasks_a_call: int, every_s: float) -> Callable[..., int]:
    """Return work that asks for tasks every so often, timed; 0: once, all in the same moment."""

    def work(client: SchedulerClient, name: str, goes_on: Callable[[], bool], latencies: list[float]) -> int:
        done = 0
        time.sleep(random.Random(name).uniform(0, every_s))  # noqa: S311 - no secret
        while goes_on():
            started = time.perf_counter()
            done += len(client.lease_tasks(campaign, annotator=name, max_tasks=tasks_a_call).tasks)
            latencies.append(time.perf_counter() - started)
            if not every_s:
                break
            time.sleep(max(0.0, started + every_s - time.perf_counter()))
        return done

    return work


def main(arguments: Sequence[str]) -> int:
    """Print {done, elapsed_s, latencies} as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("campaign")
    parser.add_argument("what", choices=("submit", "lease"))
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--a-call", type=int, default=1, help="labels or tasks")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=0.0, help="lease: seconds between two calls; 0: once")
    given = parser.parse_args(arguments)
    clients = Clients(given.address, given.clients, seconds=given.seconds)
    if given.what == "lease":
        clients.run(lease(given.campaign, given.a_call, given.every))
    else:
        with SchedulerClient(given.address, options=_OPTIONS) as client:
            classes = list(client.get_campaign(given.campaign).spec.classes)
        clients.run(submit(given.campaign, classes, given.a_call))
    json.dump({"done": clients.done, "elapsed_s": clients.elapsed_s, "latencies": clients.latencies}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
