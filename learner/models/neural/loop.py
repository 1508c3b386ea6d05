"""The training loop: AdamW on shuffled batches until the epochs, the seconds or the patience run out.

AdamW: Loshchilov and Hutter, Decoupled weight decay regularization, ICLR 2019. Early stopping: Prechelt, 1998.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from learner.models.neural.dropout import drawing_from
from learner.models.neural.loop_settings import LoopSettings
from learner.models.neural.losses import mean_weight, targets_tensor, weighted_losses
from learner.models.neural.steps import Portions, Precisely, check_caller, watched
from learner.ports import CancelCheck, FitReport, Progress
from learner.problem import Problem, Targets
from sealpool.errors import FailedPrecondition

Collate = Callable[[NDArray[np.int64]], dict[str, torch.Tensor]]
"""From rows to the module's keyword inputs on the device."""

_BATCHES_SORTED_TOGETHER = 50
"""Batches whose examples are sorted by length among themselves: little padding, and still nearly random batches."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What a module is trained on, or held against.

    Parameters
    ----------
    targets
        (n,) int64, or (n, c) bool for multi-label.
    weights
        (n,) or (n, c) float32: how much each example, or label of it, counts.
    lengths
        (n,) of the texts: examples of like length then share a batch.
    """

    targets: Targets
    weights: NDArray[np.float32]
    collate: Collate
    lengths: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.targets)


def fit_module(
    module: nn.Module,
    training: Examples,
    validation: Examples | None,
    *,
    problem: Problem,
    settings: LoopSettings,
    seed: int,
    device: torch.device,
    progress: Progress,
    cancelled: CancelCheck,
    clock: Callable[[], float] = time.monotonic,
) -> FitReport:
    """Train `module`, which lies on `device`, from the parameters that it has, and leave it in eval mode.

    `module(**inputs)` returns logits (b, c), two for a binary problem. With validation items the parameters of the
    epoch with the least validation loss are kept. The draws depend on `seed` alone, and torch's global generators are
    left as they were.

    Raises
    ------
    FailedPrecondition
        The loss is no finite number, or not even one example fits into memory.
    Cancelled
        `cancelled` said so.
    """
    run = _Run(module, training, validation, problem, settings, seed, device, clock)
    generator = torch.Generator(device).manual_seed(seed % 2**63)
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        drawing_from(generator),
        watched(module, cancelled),
    ):
        torch.manual_seed(seed % 2**63)
        try:
            return run.train(progress, cancelled)
        finally:
            module.eval()
            module.zero_grad(set_to_none=True)


class _Run:
    """One training."""

    def __init__(
        self,
        module: nn.Module,
        training: Examples,
        validation: Examples | None,
        problem: Problem,
        settings: LoopSettings,
        seed: int,
        device: torch.device,
        clock: Callable[[], float],
    ) -> None:
        self._module = module
        self._training = _OnDevice(training, problem, device)
        self._validation = (
            _OnDevice(validation, problem, device) if validation is not None and len(validation) else None
        )
        self._settings = settings
        self._order = np.random.default_rng([seed % 2**64, 1])
        self._parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._optimizer = _optimizer(self._parameters, settings)
        self._precisely = Precisely(settings.precision, device)
        self._portions = Portions(min(settings.batch_size, len(training)))
        self._best = _Best(module)
        self._clock = clock
        self._deadline = clock() + settings.max_seconds if settings.max_seconds else float("inf")
        self._late = False
        self._steps = 0

    def train(self, progress: Progress, cancelled: CancelCheck) -> FitReport:
        settings = self._settings
        loss, epoch, waited = float("nan"), 0, 0
        while epoch < settings.epochs and waited < settings.patience and not self._late:
            epoch += 1
            loss = self._epoch(cancelled)
            progress(epoch, loss)
            if self._validation is not None:
                better = self._best.offer(self._held_out_loss(cancelled))
                waited = 0 if better else waited + 1
        self._best.restore()
        notes = self._portions.notes
        if self._late:
            notes += (f"Training stopped after {settings.max_seconds:g} s, in epoch {epoch} of {settings.epochs}.",)
        return FitReport(iterations=epoch, loss=loss, notes=notes)

    def _epoch(self, cancelled: CancelCheck) -> float:
        """Train on each example once, or until the seconds run out; return the mean loss."""
        self._module.train()
        total, seen = 0.0, 0
        for rows in _batches(self._training.examples, self._settings.batch_size, self._order):
            total += self._step(rows, cancelled) * len(rows)
            seen += len(rows)
            self._late = self._clock() >= self._deadline
            if self._late:
                break
        return total / seen

    def _step(self, rows: NDArray[np.int64], cancelled: CancelCheck) -> float:
        """Step on a batch and return its mean loss."""
        total = torch.zeros((), device=self._training.device)

        def add(part: NDArray[np.int64]) -> None:
            check_caller(cancelled)
            with self._precisely.forward():
                logits = self._module(**self._training.examples.collate(part))
            loss = self._training.losses(logits, part, self._settings.label_smoothing).sum() / len(rows)
            self._precisely.backward(loss)
            total.add_(loss.detach())

        self._accumulate(rows, add, total)
        value = float(total)
        if not np.isfinite(value):
            raise FailedPrecondition(
                "training overflows: lower neural.learning_rate, or scale the vectors to lengths near 1"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate * self._warmth()
        self._precisely.step(self._optimizer, self._parameters, self._settings.max_gradient_norm)
        self._steps += 1
        return value

    def _accumulate(
        self, rows: NDArray[np.int64], add: Callable[[NDArray[np.int64]], None], total: torch.Tensor
    ) -> None:
        """Add the gradients of all rows; where memory runs out, begin anew with half as many at once.

        Anew, because a backward pass that fails has left gradients of some layers behind.
        """
        while True:
            self._optimizer.zero_grad(set_to_none=True)
            total.zero_()
            tried = min(self._portions.size, len(rows))
            if _all_fit(rows, tried, add):
                return
            self._portions.halve(tried)

    def _warmth(self) -> float:
        if not self._settings.warm_up:
            return 1.0
        batches = -(-len(self._training.examples) // self._settings.batch_size)
        return min(1.0, (self._steps + 1) / (self._settings.warm_up * batches * self._settings.epochs))

    @torch.no_grad()
    def _held_out_loss(self, cancelled: CancelCheck) -> float:
        held_out = self._validation
        if held_out is None:
            raise AssertionError("there are no validation items")
        self._module.eval()
        total = 0.0

        def add(part: NDArray[np.int64]) -> None:
            nonlocal total
            check_caller(cancelled)
            with self._precisely.forward():
                logits = self._module(**held_out.examples.collate(part))
            total += float(held_out.losses(logits, part, 0.0).sum())

        order = np.arange(len(held_out.examples))
        if held_out.examples.lengths is not None:
            order = np.argsort(-held_out.examples.lengths, kind="stable")
        self._portions.over(order, add)
        return total / len(order)


class _OnDevice:
    """Examples with their targets and weights on the device; a mean weight is 1."""

    def __init__(self, examples: Examples, problem: Problem, device: torch.device) -> None:
        self.examples = examples
        self.device = device
        self._multilabel = problem.multilabel
        self._targets = targets_tensor(problem, examples.targets, device)
        self._weights = torch.from_numpy(examples.weights / np.float32(mean_weight(examples.weights))).to(device)

    def losses(self, logits: torch.Tensor, rows: NDArray[np.int64], smoothing: float) -> torch.Tensor:
        """Return the losses (b,) of the logits of `rows`."""
        places = torch.from_numpy(rows).to(self.device)
        return weighted_losses(
            logits.float(),
            self._targets[places],
            self._weights[places],
            multilabel=self._multilabel,
            smoothing=smoothing,
        )


class _Best:
    """The parameters of the best epoch so far, in host memory. Frozen ones do not change and are not kept."""

    def __init__(self, module: nn.Module) -> None:
        learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._tensors: list[torch.Tensor] = [*learned, *module.buffers()]
        self._loss = float("inf")
        self._kept: list[torch.Tensor] = []

    def offer(self, loss: float) -> bool:
        """Keep the parameters of now if their loss is the least; return whether it is."""
        if not loss < self._loss:
            return False
        self._loss = loss
        self._kept = [tensor.detach().to("cpu", copy=True) for tensor in self._tensors]
        return True

    @torch.no_grad()
    def restore(self) -> None:
        """Put the best parameters back, if any were offered."""
        for tensor, kept in zip(self._tensors, self._kept, strict=False):
            tensor.copy_(kept)


def _all_fit(rows: NDArray[np.int64], size: int, add: Callable[[NDArray[np.int64]], None]) -> bool:
    try:
        for start in range(0, len(rows), size):
            add(rows[start : start + size])
    except torch.OutOfMemoryError:
        return False
    return True


def _batches(examples: Examples, size: int, order: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield all rows in batches, in a drawn order."""
    rows = order.permutation(len(examples))
    if examples.lengths is not None:
        span = size * _BATCHES_SORTED_TOGETHER
        spans = [rows[start : start + span] for start in range(0, len(rows), span)]
        rows = np.concatenate([some[np.argsort(examples.lengths[some], kind="stable")] for some in spans])
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    if examples.lengths is not None:
        batches = [batches[place] for place in order.permutation(len(batches))]
    yield from batches


def _optimizer(parameters: list[nn.Parameter], settings: LoopSettings) -> torch.optim.AdamW:
    """Return AdamW that leaves biases and the scales of normalisations, which are vectors, undecayed."""
    decayed = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.learning_rate)
