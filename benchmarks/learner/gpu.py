"""Entropy on one GPU: which share of its memory's bandwidth scoring reaches."""

import os
from collections.abc import Callable
from functools import partial
from typing import Final

import torch

from benchmarks.data import gaussian_mixture
from benchmarks.learner.workbench import BATCH, PROBLEM, Workbench, fitted, picker_of, source_of, targets_of
from benchmarks.report import Figure, at_least
from benchmarks.statistics import median, seconds
from learner.contexts import Lens
from learner.options import StrategyOptions
from learner.ports import Classifier, Inputs
from learner.strategies import make_strategy
from learner.strategies.entropy import entropy_of

_ITEMS: Final = 10_000_000
_DIMENSION: Final = 384
_REPETITIONS: Final = 9
_COPIED_BYTES: Final = 1 << 30
_HOST_BYTES_AN_ITEM: Final = 2 * 4 * _DIMENSION + 300
"""The vectors as they come and as the learner holds them, and ids."""
_BLOCK_ROWS: Final = 1 << 18


def measure(bench: Workbench, figure: Figure) -> None:
    """Measure what the learner holds, float32, and float16 vectors scored by the same model and formula."""
    if not torch.cuda.is_available():
        figure.skip("entropy", "torch finds no CUDA device")
        return
    device = torch.device("cuda")
    items = min(_fitting(), bench.share(_ITEMS))
    vectors = gaussian_mixture(items, _DIMENSION)
    labelled = gaussian_mixture(20_000, _DIMENSION, seed=1)[:1000].copy()
    model = fitted(labelled, targets_of(labelled), device=device)
    copied = 2 * _COPIED_BYTES / _finished(_copy(device))
    figure.add(f"{torch.cuda.get_device_name(0)}, bandwidth of a copy", copied / 1e9, "GB/s")
    halves = torch.from_numpy(vectors).to(device, torch.float16)
    for rows in sorted({min(_BLOCK_ROWS, items), items}):
        taken = _finished(partial(_entropies, model, halves, rows))
        subject = f"entropy over {items:,} × {_DIMENSION} float16, {rows:,} at once"
        figure.add(subject, taken * 1e3, "ms")
        reached = halves.nbytes / taken / copied
        figure.add(f"{subject}, share of bandwidth", reached, "", bench.at_full_size(at_least(0.5)))
    del halves
    source = source_of(vectors, device)
    strategy = make_strategy(StrategyOptions(), PROBLEM)
    lens = Lens(problem=PROBLEM, classifier=model, labelled=None, direction=None, device=device, seed=0)
    pick = picker_of(source, strategy, lens, count=BATCH)
    taken = _finished(lambda: pick(0))
    figure.add(f"a Select of the best {BATCH} of the same in float32, as the learner holds them", taken * 1e3, "ms")
    figure.add("that, share of bandwidth", vectors.nbytes / taken / copied)


def _fitting() -> int:
    """Return how many items fit on the device, in float32 with room to double, and in half of this machine's memory."""
    free, _ = torch.cuda.mem_get_info()
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return min(free // (2 * 4 * _DIMENSION), host // (2 * _HOST_BYTES_AN_ITEM))


def _copy(device: torch.device) -> Callable[[], object]:
    one = torch.ones(_COPIED_BYTES, dtype=torch.uint8, device=device)
    other = torch.empty_like(one)
    return lambda: other.copy_(one)


@torch.inference_mode()
def _entropies(model: Classifier, vectors: torch.Tensor, rows: int) -> torch.Tensor:
    parts = [
        entropy_of(model.predict_proba(Inputs(vectors=vectors[start : start + rows])).float())
        for start in range(0, len(vectors), rows)
    ]
    return torch.cat(parts)


def _finished(work: Callable[[], object]) -> float:
    """Return the median seconds until the device has finished."""

    def finished() -> None:
        work()
        torch.cuda.synchronize()

    finished()
    return median([seconds(finished) for _ in range(_REPETITIONS)])
