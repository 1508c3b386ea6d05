"""Studies and text models as rows of a report."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from statistics import fmean, stdev
from typing import Final

import torch

from benchmarks.learning import text_models
from benchmarks.learning.campaign import Arm, Campaigns, Round, Trial
from benchmarks.learning.studies import STUDIES, Study
from benchmarks.learning.texts import LabelledTexts
from benchmarks.report import Figure

CONTROL: Final = "random"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What the figures share.

    Parameters
    ----------
    seeds
        Draws of trials.
    jobs
        Trials at once, each in a process of its own with one thread.
    """

    data: Sequence[LabelledTexts]
    seeds: int
    jobs: int


def measure_study(study: Study, bench: Bench, figure: Figure) -> None:
    """Play every arm of a study on the trials of every seed, on each set of texts that it fits."""
    fitting = [texts for texts in bench.data if study.fits(texts)]
    if not fitting:
        figure.skip("campaigns", f"no {'multi-label' if study.multilabel else 'single-label'} texts were given")
    for texts in fitting:
        trials = [trial for seed in range(bench.seeds) for trial in study.draw(texts, seed)]
        played = _at_once(partial(play_arms, study.arms, study.batch, study.rounds), trials, bench.jobs)
        add_rows(figure, study, texts.name, trials, played)


def play_arms(arms: Sequence[Arm], batch: int, rounds: int, trial: Trial) -> list[list[Round]]:
    """Return the rounds of each arm on one trial."""
    torch.set_num_threads(1)
    campaigns = Campaigns(trial)
    return [campaigns.play(arm, batch=batch, rounds=rounds) for arm in arms]


def add_rows(
    figure: Figure, study: Study, name: str, trials: Sequence[Trial], played: Sequence[Sequence[Sequence[Round]]]
) -> None:
    """Add a row an arm and measure: mean ± standard error over trials at some numbers of labels.

    Parameters
    ----------
    played
        Rounds by trial and arm.
    """
    first = played[0][0]
    held_out = {len(trial.test_targets) for trial in trials}
    figure.add(name, f"{study.about}; {len(trials)} trials, up to {max(held_out):,} held-out texts")
    figure.add("labels", " · ".join(f"{first[number].labels:,}" for number in study.shown))
    for measure, value_of in study.measures.items():
        values = {
            arm.name: [[value_of(of_trial[place][number]) for number in study.shown] for of_trial in played]
            for place, arm in enumerate(study.arms)
        }
        curves = {
            arm.name: [fmean(value_of(one) for one in of_trial[place][1:]) for of_trial in played]
            for place, arm in enumerate(study.arms)
        }
        for arm in study.arms:
            shown = " · ".join(mean_and_error(at) for at in zip(*values[arm.name], strict=True))
            figure.add(f"{measure}, {arm.name}", shown + _beside_control(arm.name, curves))
    for place, arm in enumerate(study.arms):
        if arm.strategy.name == "auto":
            chosen = [of_trial[place] for of_trial in played]
            figure.add("chosen by auto, batch by batch", " · ".join(_chosen(chosen, n) for n in range(study.rounds)))


def mean_and_error(values: Sequence[float]) -> str:
    """Return "mean ± standard error", the mean alone of one value."""
    mean = f"{fmean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {stdev(values) / len(values) ** 0.5:.1f}"


def _beside_control(name: str, curves: Mapping[str, Sequence[float]]) -> str:
    """Say by how much an arm's mean over all rounds exceeds the control's, trial by trial."""
    if name == CONTROL or CONTROL not in curves:
        return ""
    gaps = [one - control for one, control in zip(curves[name], curves[CONTROL], strict=True)]
    return f"; over random, mean of all rounds: {mean_and_error(gaps)}"


def _chosen(rounds: Sequence[Sequence[Round]], number: int) -> str:
    names = [one[number].picked_by for one in rounds]
    return ", ".join(f"{names.count(name)}× {name}" for name in sorted(set(names)))


def _at_once(
    play: Callable[[Trial], list[list[Round]]], trials: Sequence[Trial], jobs: int
) -> Sequence[Sequence[Sequence[Round]]]:
    if jobs == 1:
        return [play(trial) for trial in trials]
    # Spawned: a forked child hangs once torch has used its threads.
    with ProcessPoolExecutor(max_workers=jobs, mp_context=get_context("spawn")) as pool:
        return list(pool.map(play, trials))


def _text_models(bench: Bench, figure: Figure) -> None:
    fitting = [texts for texts in bench.data if not texts.problem.multilabel]
    if not fitting:
        figure.skip("models that read texts", "no single-label texts were given")
    for texts in fitting:
        text_models.measure(texts, min(bench.seeds, text_models.MOST_SEEDS), figure, mean_and_error)


FIGURES: Final[Mapping[str, Callable[[Bench, Figure], None]]] = {
    **{name: partial(measure_study, study) for name, study in STUDIES.items()},
    "text_models": _text_models,
}
