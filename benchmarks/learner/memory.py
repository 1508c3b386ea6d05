"""Resident memory of candidates, each in a process of its own: `python -m benchmarks.learner.memory` is it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.data import gaussian_mixture, item_ids
from benchmarks.learner.workbench import Workbench, put
from benchmarks.machine import ROOT
from benchmarks.report import Figure, at_most
from learner.candidates import Candidates

_PIECES: Final = 100
_SHARE: Final = 1.2


def measure(bench: Workbench, figure: Figure) -> None:
    """Measure candidates that came in one answer, and such that came a round at a time."""
    items, dimension = bench.options.items, bench.options.dimension
    raw = 4 * items * dimension
    figure.add(f"raw vectors, {items:,} × {dimension} float32", raw / 1e6, "MB")
    for subject, pieces in (("in one answer", 1), (f"in {_PIECES} answers", _PIECES)):
        idle, _ = _in_child("drop", items, dimension, pieces)
        resident, most = _in_child("hold", items, dimension, pieces)
        figure.add(f"{subject}, process without candidates", idle / 1e6, "MB")
        figure.add(f"{subject}, process with them", resident / 1e6, "MB")
        ratio = (resident - idle) / raw
        figure.add(f"{subject}, candidates / raw vectors", ratio, "×", bench.at_full_size(at_most(_SHARE)))
        figure.add(f"{subject}, most at any time / raw vectors", (most - idle) / raw, "×")


def _in_child(action: str, items: int, dimension: int, pieces: int) -> tuple[int, int]:
    """Return the resident memory of a child that holds candidates or drops them, and the most it had, in bytes."""
    command = [sys.executable, "-m", "benchmarks.learner.memory", action, *map(str, (items, dimension, pieces))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"the measured process failed: {(done.stderr.strip().splitlines() or [''])[-1]}")
    resident, most = json.loads(done.stdout)
    return resident, most


def hold(action: str, items: int, dimension: int, pieces: int) -> Candidates:
    """Return candidates that came in `pieces` answers; none, though the answers are made, for any action but hold."""
    candidates = Candidates()
    ids = item_ids(items)
    for piece in range(pieces):
        some = ids[piece * items // pieces : (piece + 1) * items // pieces]
        vectors = gaussian_mixture(len(some), dimension, seed=piece)
        if action == "hold":
            put(candidates, some, vectors)
    return candidates


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    held = hold(sys.argv[1], *map(int, sys.argv[2:5]))
    sys.stdout.write(json.dumps([_status("VmRSS"), _status("VmHWM")]))
