"""Eight clients at once against one. Each is a process: threads of one Python would wait for each other too."""

import multiprocessing
import queue
import time
from multiprocessing.synchronize import Barrier
from typing import Final, NamedTuple

from benchmarks.data import draws
from benchmarks.index.workbench import LoadedPool, Workbench
from benchmarks.report import Figure, at_least, at_most
from benchmarks.server import CLIENT_OPTIONS
from benchmarks.statistics import median, quantile
from sealpool.client import IndexClient
from sealpool.types import Vectors

_CLIENTS: Final = 8
_SHAPES: Final = ((1, 10), (16, 100))
_ROUNDS: Final = 3
_QUERIES: Final = 1024
_PATIENCE_S: Final = 300.0

Outcome = tuple[float, list[float]]
"""Calls a second of all clients, and the seconds of each call."""


class Turn(NamedTuple):
    """How many clients call, with what, for how long."""

    clients: int
    queries: int
    k: int
    duration_s: float


def measure(bench: Workbench, figure: Figure) -> None:
    """Measure calls in a closed loop: each client sends the next when it has the last answer."""
    duration_s = 1.0 if bench.options.quick else 5.0
    plan = [Turn(clients, *shape, duration_s) for shape in _SHAPES for _ in range(_ROUNDS) for clients in (1, _CLIENTS)]
    outcomes = _run(bench.server.address, bench.gaussian(), plan)
    figure.add("clients", f"{_CLIENTS} processes on the server's own cores, each in a closed loop")
    for queries, k in _SHAPES:
        of_shape = [(turn, outcome) for turn, outcome in zip(plan, outcomes, strict=True) if turn[1:3] == (queries, k)]
        alone = [outcome for turn, outcome in of_shape if turn.clients == 1]
        together = [outcome for turn, outcome in of_shape if turn.clients == _CLIENTS]
        _add(figure, f"{queries} {'query' if queries == 1 else 'queries'} a call, k = {k}", alone, together)


def _add(figure: Figure, shape: str, alone: list[Outcome], together: list[Outcome]) -> None:
    one = median([rate for rate, _ in alone])
    many = median([rate for rate, _ in together])
    waits = [seconds for _, some in together for seconds in some]
    half, worst = quantile(waits, 0.5), quantile(waits, 0.99)
    figure.add(f"{shape}, one client", one, "calls/s")
    figure.add(f"{shape}, {_CLIENTS} clients", many, "calls/s")
    figure.add(f"{shape}, {_CLIENTS} clients / one", many / one, "×", at_least(1.5))
    figure.add(f"{shape}, p50 of {_CLIENTS} clients", 1000 * half, "ms")
    figure.add(f"{shape}, p99 / p50 of {_CLIENTS} clients", worst / half, "×", at_most(8))


def _run(address: str, loaded: LoadedPool, plan: list[Turn]) -> list[Outcome]:
    """Return the outcome of each turn. The processes live through all of them: starting one takes seconds."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(_CLIENTS)
    answers: multiprocessing.Queue[Outcome] = context.Queue()
    draw = draws(len(loaded.ids), _QUERIES, _CLIENTS)
    processes = [
        context.Process(
            target=_client,
            args=(number, address, loaded.name, loaded.vectors[draw[number]], plan, barrier, answers),
            daemon=True,
        )
        for number in range(_CLIENTS)
    ]
    for process in processes:
        process.start()
    try:
        outcomes = [_gather(turn, answers) for turn in plan]
    except queue.Empty as error:
        raise OSError("a client gave no answer") from error
    for process in processes:
        process.join()
    return outcomes


def _gather(turn: Turn, answers: "multiprocessing.Queue[Outcome]") -> Outcome:
    parts = [answers.get(timeout=turn.duration_s + _PATIENCE_S) for _ in range(turn.clients)]
    return sum(rate for rate, _ in parts), [seconds for _, some in parts for seconds in some]


def _client(
    number: int,
    address: str,
    pool: str,
    vectors: Vectors,
    plan: list[Turn],
    barrier: Barrier,
    answers: "multiprocessing.Queue[Outcome]",
) -> None:
    with IndexClient(address, options=CLIENT_OPTIONS) as client:
        client.get_pool(pool)
        for turn in plan:
            barrier.wait()
            if number < turn.clients:
                answers.put(_take_turn(client, pool, vectors, turn))


def _take_turn(client: IndexClient, pool: str, vectors: Vectors, turn: Turn) -> Outcome:
    times: list[float] = []
    began = now = time.perf_counter()
    while now < began + turn.duration_s:
        start = len(times) * turn.queries % (len(vectors) - turn.queries + 1)
        client.search(pool, k=turn.k, vectors=vectors[start : start + turn.queries])
        times.append(time.perf_counter() - now)
        now = time.perf_counter()
    return len(times) / (now - began), times
