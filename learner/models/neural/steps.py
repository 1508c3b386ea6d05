"""One step of gradient descent: micro-batches that fit into memory, mixed precision, leaving within a second."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from learner.options import Precision
from learner.ports import CancelCheck
from sealpool.errors import Cancelled, FailedPrecondition

_WATCHED_FROM = 1_000_000
"""Parameters from which a module's parts are watched: one step of a smaller one takes less than a second."""


class Portions:
    """Works through rows in portions of at most `size`, which is halved where the device's memory runs out."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._first = size

    def over(self, rows: NDArray[np.int64], work: Callable[[NDArray[np.int64]], None]) -> None:
        """Call `work` with consecutive parts of `rows`; a part that does not fit is tried again, halved.

        `work` must leave nothing behind where it raises torch.OutOfMemoryError.

        Raises
        ------
        FailedPrecondition
            Not even one row fits.
        """
        start = 0
        while start < len(rows):
            part = rows[start : start + self.size]
            if _fits(work, part):
                start += len(part)
            else:
                self.halve(len(part))

    def halve(self, tried: int) -> None:
        """Take half of the `tried` rows at once from now on. Called outside of `except`, which would hold tensors."""
        if tried <= 1:
            raise FailedPrecondition("the device's memory does not hold the model and one example: use a smaller model")
        self.size = max(1, min(self.size, tried) // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def notes(self) -> tuple[str, ...]:
        """What to tell users, if it was halved."""
        if self.size == self._first:
            return ()
        return (f"The device's memory ran out: {self.size} examples went at once in place of {self._first}.",)


def _fits(work: Callable[[NDArray[np.int64]], None], rows: NDArray[np.int64]) -> bool:
    try:
        work(rows)
    except torch.OutOfMemoryError:
        return False
    return True


class Precisely:
    """Computes in the precision that was asked for.

    MIXED is bfloat16 where the device has it, else float16 with a scaled loss (Micikevicius et al., ICLR 2018). AUTO is
    MIXED on a GPU and float32 elsewhere.
    """

    def __init__(self, precision: Precision, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        mixed = precision is Precision.MIXED or (precision is Precision.AUTO and on_gpu)
        half = on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False)
        self._type = torch.float16 if half else torch.bfloat16
        self._device = device.type
        self._mixed = mixed
        self._scaler = torch.amp.GradScaler(device.type, enabled=mixed and half)

    def forward(self) -> AbstractContextManager[object]:
        """Return the context that the forward pass runs in."""
        return torch.autocast(self._device, self._type) if self._mixed else nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss`."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], max_norm: float) -> None:
        """Clip the gradients and step."""
        self._scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parameters, max_norm)
        self._scaler.step(optimizer)
        self._scaler.update()


def check_caller(cancelled: CancelCheck) -> None:
    """Raise Cancelled where the caller has left."""
    if cancelled():
        raise Cancelled("the caller left while the model was trained")


@contextmanager
def watched(module: nn.Module, cancelled: CancelCheck) -> Iterator[None]:
    """Ask `cancelled` before every part of a large module, forwards and backwards.

    One micro-batch of a large encoder takes many seconds on a CPU; its layers take less than one.
    """
    if sum(parameter.numel() for parameter in module.parameters()) < _WATCHED_FROM:
        yield
        return

    def before(_module: nn.Module, _inputs: Any) -> None:
        check_caller(cancelled)

    def after(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.requires_grad:
            output.register_hook(lambda _gradient: check_caller(cancelled))  # type: ignore[no-untyped-call]

    handles = []
    for part in module.modules():
        handles += [part.register_forward_pre_hook(before), part.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
