"""BatchBALD on the posterior samples of one model, which the peer is given and ours draws while it is timed."""

import contextlib
import gc
import io
from functools import partial
from typing import Any

import torch

from benchmarks.learner.beside import Peer, Work, add_beside, peer_module
from benchmarks.learner.workbench import CLASSES, Workbench, fitted, rows_of
from benchmarks.report import Figure, at_least
from benchmarks.statistics import recall
from learner.options import ModelOptions, UncertaintyOptions
from learner.ports import Inputs
from learner.strategies.joint_entropy import MOST_CONFIGURATIONS, SAMPLED_CONFIGURATIONS, JointEntropy

_BATCH = 10
_SAMPLES = 50
_SEED = 0
_CHECKED_WITH = 100_000
"""Configurations that the information of a batch is told from."""
_PACKAGE = "batchbald_redux"


def measure(bench: Workbench, figure: Figure) -> None:
    """Measure a batch of 10, and compare the picks while both are exact: as long as 10,000 labellings suffice."""
    items, count = bench.share(10_000), min(_BATCH, bench.share(10_000))
    model = fitted(
        bench.labelled_vectors,
        bench.labelled_targets,
        ModelOptions(uncertainty=UncertaintyOptions(estimator="laplace", samples=_SAMPLES)),
    )
    lens = bench.lens(bench.source(items), model=model, seed=_SEED)
    ours = bench.picker("batch_bald", items, count=count, lens=lens)
    samples = model.sample_proba(Inputs(vectors=torch.from_numpy(bench.vectors(items))), seed=_SEED)
    picks: dict[int, list[int]] = {}

    def theirs(configurations: int) -> Work:
        batch_bald = peer_module(f"{_PACKAGE}.batchbald", _PACKAGE).get_batchbald_batch
        log_samples = samples.clamp_min(1e-30).log().transpose(0, 1).contiguous()

        def pick(_: int) -> None:
            picks[configurations] = _picked_by(batch_bald, log_samples, count, configurations)

        return pick

    peers = [
        Peer(
            name=f"{_PACKAGE}, {configurations:,} labellings",
            make=partial(theirs, configurations),
            repetitions=1,
            bound=2,
        )
        for configurations in (MOST_CONFIGURATIONS, SAMPLED_CONFIGURATIONS)
    ]
    subject = f"{items:,} candidates × {_SAMPLES} samples × {CLASSES} classes, batch {count}"
    add_beside(bench, figure, subject, ours, peers)
    if MOST_CONFIGURATIONS in picks:
        _add_picks(figure, rows_of(ours(0)), picks[MOST_CONFIGURATIONS], samples)


def _picked_by(batch_bald: Any, log_samples: torch.Tensor, count: int, configurations: int) -> list[int]:
    torch.manual_seed(_SEED)
    gc.freeze()  # It collects garbage at every step, which would take as long as this process has objects.
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        found: list[int] = batch_bald(log_samples, count, configurations, dtype=torch.double).indices
    gc.unfreeze()
    return found


def _add_picks(figure: Figure, ours: list[int], theirs: list[int], samples: torch.Tensor) -> None:
    exact = 1
    while CLASSES**exact <= MOST_CONFIGURATIONS and exact < len(ours):
        exact += 1
    same = sum(a == b for a, b in zip(ours[:exact], theirs[:exact], strict=True))
    figure.add(f"the same picks in the same order, of the {exact} that are exact", same, "", at_least(exact))
    figure.add("the same picks, of all", recall(set(map(str, ours)), set(map(str, theirs))))
    figure.add(f"mutual information of our batch (at most ln {_SAMPLES})", _information(samples[:, ours]), "nats")
    figure.add("mutual information of theirs", _information(samples[:, theirs]), "nats")


def _information(samples: torch.Tensor) -> float:
    """Return the mutual information of the labels of items with samples (K, b, c) and the model."""
    joint = JointEntropy(len(samples), seed=1, device=samples.device, most=_CHECKED_WITH, sampled=_CHECKED_WITH)
    total = 0.0
    for place in range(samples.shape[1]):
        total += float(joint.gains(samples[:, place : place + 1])[0])
        joint.add(samples[:, place])
    return total
