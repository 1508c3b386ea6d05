"""The training loop: what it does when memory, time, patience or the caller runs out."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from learner.models.neural.dropout import ConsistentDropout, one_mask
from learner.models.neural.loop import Examples, fit_module
from learner.models.neural.loop_settings import LoopSettings, filled
from learner.options import NeuralOptions, Precision
from learner.ports import FitReport
from learner.problem import Problem, Task
from sealpool.errors import Cancelled, FailedPrecondition

CPU = torch.device("cpu")
PROBLEM = Problem(task=Task.MULTICLASS, classes=("a", "b", "c"))
SETTINGS = LoopSettings(epochs=4, batch_size=16, learning_rate=0.05)


class Small(nn.Module):
    """A linear model whose memory holds `fits` examples, and that remembers how many it was given at a time."""

    def __init__(self, *, fits: int = 1000, dropout: float = 0.0, late: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Linear(5, 8)
        self.dropout = ConsistentDropout(dropout)
        self.head = nn.Linear(8, 3)
        self.fits, self.late = fits, late
        self.given: list[int] = []

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        self.given.append(len(vectors))
        logits = self.head(self.dropout(torch.relu(self.body(vectors))))
        if len(vectors) > self.fits:
            if not self.late or not self.training:
                raise torch.OutOfMemoryError("no memory left")
            logits.register_hook(self._fail)
        return logits

    def _fail(self, _gradient: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("no memory left")


def examples(count: int = 40, *, seed: int = 0, noise: float = 0.3, lengths: bool = False) -> Examples:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 3, count)
    vectors = np.random.default_rng(9).normal(size=(3, 5))[targets] + rng.normal(0, noise, (count, 5))
    tensor = torch.from_numpy(vectors.astype(np.float32))
    return Examples(
        targets=targets,
        weights=np.ones(count, np.float32),
        collate=lambda rows: {"vectors": tensor[torch.from_numpy(rows)]},
        lengths=rng.integers(1, 50, count) if lengths else None,
    )


def train(module: nn.Module, training: Examples, validation: Examples | None = None, **others) -> FitReport:
    return fit_module(
        module,
        training,
        validation,
        problem=PROBLEM,
        settings=others.get("settings", SETTINGS),
        seed=others.get("seed", 3),
        device=CPU,
        progress=others.get("progress", lambda *_: None),
        cancelled=others.get("cancelled", lambda: False),
        **({"clock": others["clock"]} if "clock" in others else {}),
    )


def parameters_of(module: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


@pytest.mark.parametrize("late", [False, True], ids=["forwards", "backwards"])
def test_where_memory_runs_out_smaller_portions_make_the_same_steps_and_a_note_says_so(late: bool) -> None:
    roomy, tight = Small(), Small(fits=5, late=late)
    plain, halved = train(roomy, examples()), train(tight, examples())
    assert plain.notes == ()
    assert len(halved.notes) == 1
    assert "4 examples went at once in place of 16" in halved.notes[0]
    assert max(tight.given[-10:]) <= 4
    torch.testing.assert_close(parameters_of(tight), parameters_of(roomy), atol=1e-5, rtol=1e-4)
    assert halved.loss == pytest.approx(plain.loss, rel=1e-4)


def test_memory_for_not_even_one_example_is_a_failed_precondition() -> None:
    with pytest.raises(FailedPrecondition, match="memory"):
        train(Small(fits=0), examples())


def test_the_epoch_of_least_validation_loss_is_kept_and_patience_ends_training() -> None:
    training, validation = examples(12, noise=3.0), examples(40, seed=1, noise=3.0)
    settings = replace(SETTINGS, epochs=200, patience=3)
    seen: list[torch.Tensor] = []
    module = Small()
    report = train(
        module, training, validation, settings=settings, progress=lambda *_: seen.append(parameters_of(module))
    )
    assert report.iterations < 200
    losses = []
    inputs = validation.collate(np.arange(40))
    for parameters in seen:
        probe = Small()
        nn.utils.vector_to_parameters(parameters, probe.parameters())
        loss = nn.functional.cross_entropy(probe.eval()(**inputs), torch.from_numpy(validation.targets))
        losses.append(loss.item())
    best = int(np.argmin(losses))
    assert report.iterations == best + 1 + 3
    torch.testing.assert_close(parameters_of(module), seen[best])


def test_a_cap_on_seconds_ends_training_after_the_step_that_passes_it() -> None:
    time = iter(range(1000))
    module = Small()
    settings = replace(SETTINGS, epochs=100, max_seconds=4)
    report = train(module, examples(), settings=settings, clock=lambda: float(next(time)))
    assert report.iterations == 2
    assert len(module.given) == 4  # one reading of the clock a step, and the first one before
    assert "stopped after 4 s, in epoch 2 of 100" in report.notes[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_a_failed_precondition(value: float) -> None:
    module = Small()
    nn.init.constant_(module.head.bias, value)
    with pytest.raises(FailedPrecondition, match="overflows"):
        train(module, examples())


class Deep(nn.Module):
    """Large enough for its parts to be watched; counts the layers that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(512, 512) for _ in range(4))
        self.head = nn.Linear(512, 3)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        hidden = torch.nn.functional.pad(vectors, (0, 507))
        for layer in self.layers:
            hidden = torch.relu(layer(hidden))
        return self.head(hidden)


@pytest.mark.parametrize("after", [1, 2, 4, 7, 9, 12])
def test_a_caller_who_leaves_is_noticed_between_the_layers_of_a_large_model(after: int) -> None:
    asked = []
    module = Deep()

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) >= after

    with pytest.raises(Cancelled):
        train(module, examples(4), cancelled=cancelled, settings=replace(SETTINGS, epochs=1))
    assert len(asked) == after  # the one step asks 13 times: before, in 6 parts forwards, in 6 backwards
    assert not module._forward_hooks
    assert not any(part._forward_pre_hooks for part in module.modules())


def test_the_same_seed_makes_the_same_model_and_leaves_torchs_generator_alone() -> None:
    def trained(seed: int, disturb: Callable[[], object]) -> torch.Tensor:
        module = Small(dropout=0.5)
        before = torch.random.get_rng_state()
        train(module, examples(lengths=True), seed=seed, progress=lambda *_: disturb())
        assert torch.equal(torch.random.get_rng_state(), before)
        return parameters_of(module)

    quiet = trained(3, lambda: None)
    # Another thread that trains draws from torch's generator all the while.
    torch.testing.assert_close(trained(3, lambda: torch.rand(7)), quiet, rtol=0, atol=0)
    assert not torch.equal(trained(4, lambda: None), quiet)


def test_weights_count_and_smoothing_smooths() -> None:
    training = examples()
    module = Small()
    tilted = replace(training, weights=np.where(training.targets == 2, 100, 1).astype(np.float32))
    train(module, tilted, settings=replace(SETTINGS, epochs=1))
    predicted = module(**training.collate(np.arange(40))).argmax(1).numpy()
    assert (predicted[training.targets == 2] == 2).all()

    sharp, smooth = Small(), Small()
    train(sharp, training, settings=replace(SETTINGS, epochs=30))
    train(smooth, training, settings=replace(SETTINGS, epochs=30, label_smoothing=0.3))
    tops = [torch.softmax(m(**training.collate(np.arange(40))), 1).amax(1).mean().item() for m in (sharp, smooth)]
    assert tops[0] > 0.97
    assert tops[1] == pytest.approx(0.8, abs=0.05)  # 1 − 0.3 + 0.3 / 3


def test_mixed_precision_on_the_cpu_learns_too() -> None:
    report = train(Small(), examples(), settings=replace(SETTINGS, epochs=15, precision=Precision.MIXED))
    assert report.loss < 0.2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", list(Precision))
def test_every_precision_learns_on_a_gpu(precision: Precision) -> None:
    device, training = torch.device("cuda"), examples()
    on_gpu = replace(training, collate=lambda rows: {"vectors": training.collate(rows)["vectors"].to(device)})
    settings = replace(SETTINGS, epochs=15, precision=precision)
    module = Small(dropout=0.1).to(device)
    report = fit_module(
        module, on_gpu, on_gpu, problem=PROBLEM, settings=settings, seed=1, device=device, progress=lambda *_: None,
        cancelled=lambda: False,
    )  # fmt: skip
    assert report.loss < 0.3


def test_options_are_filled_with_the_models_defaults_and_then_the_loops() -> None:
    settings = filled(NeuralOptions(dropout=0.0, epochs=7), epochs=100, batch_size=64)
    assert (settings.dropout, settings.epochs, settings.batch_size) == (0.0, 7, 64)
    assert (settings.weight_decay, settings.patience, settings.max_gradient_norm) == (0.01, 5, 1.0)


def test_held_masks_are_one_for_all_rows_tokens_and_calls_and_differ_between_samples_and_layers() -> None:
    net = nn.Sequential(ConsistentDropout(0.5), ConsistentDropout(0.5)).eval()
    ones = torch.ones(3, 4, 200)
    assert torch.equal(net(ones), ones)
    with one_mask(net, 7, 0):
        first, again, row = net(ones), net(ones), net(ones[1, 2])
        assert torch.equal(net[0](ones), (net[0](ones[:1, :1])).expand(3, 4, 200))
        layers = [net[0](ones[0, 0]) > 0, net[1](ones[0, 0]) > 0]
    with one_mask(net, 7, 1):
        other = net(ones)
    with one_mask(net, 7, 0, rate=0.9):
        sparse = net[0](ones)
    assert torch.equal(net(ones), ones)
    assert torch.equal(first, again)
    assert torch.equal(first[1, 2], row)
    assert not torch.equal(first, other)
    assert not torch.equal(*layers)
    torch.testing.assert_close(sorted(set(first.unique().tolist())), [0.0, 4.0])
    assert float((sparse > 0).float().mean()) == pytest.approx(0.1, abs=0.07)
