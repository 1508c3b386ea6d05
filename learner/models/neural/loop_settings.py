"""How the training loop is set."""

from dataclasses import dataclass

from learner.options import NeuralOptions, Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopSettings:
    """NeuralOptions with nothing left open; 0 seconds is no cap.

    Parameters
    ----------
    warm_up
        Share of all steps over which the learning rate rises from 0; after it the rate stays.
    """

    hidden: tuple[int, ...] = (128,)
    dropout: float = 0.1
    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    patience: int = 5
    max_seconds: float = 0.0
    max_gradient_norm: float = 1.0
    precision: Precision = Precision.AUTO
    warm_up: float = 0.0


def filled(options: NeuralOptions, **defaults: object) -> LoopSettings:
    """Return `options`, with `defaults`, fields of LoopSettings, where it leaves the choice, and then LoopSettings'."""
    asked = {name: getattr(options, name) for name in NeuralOptions.__slots__}
    optional = ("dropout", "weight_decay")  # in which 0 is a choice
    chosen = {name: value for name, value in asked.items() if (value is not None if name in optional else value)}
    return LoopSettings(**{**defaults, **chosen})
