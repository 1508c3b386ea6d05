"""python -m benchmarks.peers [--items N] [--only NAME,…]: sealpool and other vector services on the same vectors."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.data import draws, gaussian_mixture, item_ids
from benchmarks.in_process import exact_neighbors, flat_index
from benchmarks.machine import ROOT
from benchmarks.peers.trial import FLOOR, NEIGHBORS, PEERS, SINGLE_NEIGHBORS
from benchmarks.report import Figure, at_least
from benchmarks.runner import CACHE, chosen, new_report, results_path, run_figures

_OURS: Final = "sealpool"
_BATCH: Final = 100
_TIMEOUT_S: Final = 7200
_FULL_ITEMS: Final = 100_000
_INGEST_TARGETS: Final = {"chroma": 5.0, "milvus_lite": 5.0}


class NotMeasuredError(OSError):
    """A peer has no figures. The message is why."""


@dataclass(kw_only=True)
class Bench:
    """The data on disk, where the peers' environments are, and what was measured so far."""

    items: int
    dimension: int
    repetitions: int
    environments: Path
    folder: Path
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def prepare(self) -> None:
        """Write the vectors, the queries and their true neighbours."""
        vectors = gaussian_mixture(self.items, self.dimension)
        rows = draws(self.items, _BATCH, self.repetitions + 1)
        np.save(self.folder / "vectors.npy", vectors)
        np.save(self.folder / "queries.npy", np.array(rows))
        np.save(self.folder / "exact.npy", exact_neighbors(flat_index(vectors), vectors, rows[0], NEIGHBORS))
        (self.folder / "ids.json").write_text(json.dumps(item_ids(self.items)))

    def run(self, name: str) -> dict[str, Any]:
        """Return the outcome of one peer, measured in its own environment. NotMeasuredError where it has none."""
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            folder = Path(place)
            for file in ("vectors.npy", "queries.npy", "exact.npy", "ids.json"):
                (folder / file).hardlink_to(self.folder / file)
            self._start(name, folder)
            written = folder / "outcome.json"
            outcome: dict[str, Any] = json.loads(written.read_text()) if written.exists() else {"failed": "it died"}
        if "failed" in outcome:
            raise NotMeasuredError(outcome["failed"])
        self.outcomes[name] = outcome
        return outcome

    def _start(self, name: str, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)])}
        command = [str(self._python(name)), "-m", "benchmarks.peers.trial", name, str(folder)]
        with (self.folder / f"{name}.log").open("wb") as log:
            try:
                subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=_TIMEOUT_S, check=False)
            except subprocess.TimeoutExpired as error:
                raise NotMeasuredError(f"not done after {_TIMEOUT_S:,} s") from error

    def _python(self, name: str) -> Path:
        if name == _OURS:
            return Path(sys.executable)
        python = self.environments / name / "bin" / "python"
        failed = self.environments / f"{name}.failed"
        if failed.exists() or not python.exists():
            why = failed.read_text().strip() if failed.exists() else "run benchmarks/peers/install.sh"
            raise NotMeasuredError(f"not installed: {why}")
        return python


def _measure(name: str, bench: Bench, figure: Figure) -> None:
    try:
        outcome = bench.run(name)
    except NotMeasuredError as error:
        figure.skip(name, str(error))
        return
    ours = bench.outcomes.get(_OURS)
    figure.add("what", outcome["about"])
    figure.add("ingest means", outcome["kept"])
    figure.add(f"recall at k = {NEIGHBORS}, with {outcome['effort']}", outcome["recall"], "", at_least(FLOOR))
    figure.add(f"ingest of {bench.items:,} × {bench.dimension}", outcome["ingest_s"], "s")
    figure.add("until its index serves, after that", outcome["build_s"], "s")
    figure.add(f"one query, k = {SINGLE_NEIGHBORS}, p50", 1000 * outcome["single_p50_s"], "ms")
    figure.add(f"one query, k = {SINGLE_NEIGHBORS}, p99", 1000 * outcome["single_p99_s"], "ms")
    figure.add(f"batch of {_BATCH}, k = {NEIGHBORS}, {_BATCH} ids excluded", 1000 * outcome["batch_s"], "ms")
    figure.add(f"expand from {_BATCH}, k = {NEIGHBORS}, with vectors", 1000 * outcome["expand_s"], "ms")
    figure.add("candidates that came", outcome["added"])
    if ours is not None and name != _OURS:
        _compare(name, figure, outcome, ours)


def _compare(name: str, figure: Figure, outcome: dict[str, Any], ours: dict[str, Any]) -> None:
    target = at_least(_INGEST_TARGETS[name]) if name in _INGEST_TARGETS else None
    figure.add("its ingest / ours", outcome["ingest_s"] / ours["ingest_s"], "×", target)
    indexed, ours_indexed = (some["ingest_s"] + some["build_s"] for some in (outcome, ours))
    figure.add("its ingest until the index serves / ours", indexed / ours_indexed, "×")
    for what, key in (("one query, p50", "single_p50_s"), ("batch", "batch_s"), ("expand", "expand_s")):
        figure.add(f"its {what} / ours", outcome[key] / ours[key], "×")


def main(arguments: Sequence[str]) -> int:
    """Return 0: a peer that cannot be measured is a row that says why."""
    given = _parser().parse_args(arguments)
    names = chosen(given.only, PEERS)
    items = _FULL_ITEMS // 10 if given.quick else given.items
    path = given.out or results_path("peers", partial=bool(given.only), quick=items < _FULL_ITEMS)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="peers-") as folder:
        bench = Bench(
            items=items,
            dimension=given.dimension,
            repetitions=given.repetitions,
            environments=given.environments.resolve(),
            folder=given.keep.resolve() if given.keep else Path(folder),
        )
        bench.prepare()
        figures: dict[str, Callable[[Bench, Figure], None]] = {name: partial(_measure, name) for name in names}
        return run_figures(figures, bench, report=new_report("benchmarks.peers", arguments), path=path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the data")
    parser.add_argument("--only", default="", help=f"peers, by name: {', '.join(PEERS)}")
    parser.add_argument("--items", type=int, default=_FULL_ITEMS)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--environments", type=Path, default=ROOT / "benchmarks" / ".peers")
    parser.add_argument("--keep", type=Path, help="a folder that keeps the vectors and the peers' logs")
    parser.add_argument("--out", type=Path, help="the report (default benchmarks/results/peers.json)")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
