"""Figures by name, in the order in which they are measured."""

from collections.abc import Callable
from typing import Final

from benchmarks.index import clients, expand, graph, growth, ingest, latency, memory, restart, score, tax
from benchmarks.index.workbench import Workbench
from benchmarks.report import Figure

FIGURES: Final[dict[str, Callable[[Workbench, Figure], None]]] = {
    "expand": expand.measure,
    "score": score.measure,
    "tax": tax.measure,
    "latency": latency.measure,
    "clients": clients.measure,
    "growth": growth.measure,
    "graph": graph.measure,
    "ingest": ingest.measure,
    "restart": restart.measure,
    "memory": memory.measure,
}
