"""The device: one that FAISS finds, or the host for a dry run; and what it can do at most, measured."""

import time
from collections.abc import Callable
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.statistics import median

_REPETITIONS: Final = 5
_TEMPORARY_BYTES: Final = 1 << 30


class NoGpuError(Exception):
    """There is no GPU to measure on. The message is why."""


class Host:
    """The CPU, to try the benchmark without a GPU. Its figures mean nothing."""

    name = "CPU (dry run)"

    def flat(self, vectors: NDArray[np.float16]) -> Any:
        """Return an exact index over `vectors`."""
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors.astype(np.float32))
        return index

    def bandwidth(self, count: int) -> float:
        """Return bytes a second read and written by a copy of `count` bytes."""
        source = np.ones(count, np.uint8)
        target = np.empty_like(source)
        return 2 * count / _median_seconds(lambda: np.copyto(target, source))

    def matrix_rate(self, size: int) -> float:
        """Return operations a second of a product of two square matrices."""
        square = np.ones((size, size), np.float32)
        return 2 * size**3 / _median_seconds(lambda: square @ square)


class Gpu:
    """GPU 0 through FAISS; torch measures what it can do at most."""

    def __init__(self) -> None:
        if not faiss.get_num_gpus():
            raise NoGpuError("FAISS finds no GPU (its CPU build is installed, or there is none)")
        try:
            import torch
        except ImportError as error:
            raise NoGpuError("torch, which measures the bounds, is not installed") from error
        if not torch.cuda.is_available():
            raise NoGpuError("torch finds no GPU to measure the bounds with")
        self._torch = torch
        self.name: str = torch.cuda.get_device_name(0)
        self._resources = faiss.StandardGpuResources()
        self._resources.setTempMemory(_TEMPORARY_BYTES)

    def flat(self, vectors: NDArray[np.float16]) -> Any:
        """Return an exact float16 index over `vectors` on the GPU."""
        config = faiss.GpuIndexFlatConfig()
        config.useFloat16 = True
        config.use_cuvs = False
        index = faiss.GpuIndexFlatIP(self._resources, vectors.shape[1], config)
        # In pieces: FAISS takes float32, and ten million of 384 are 15 GB at once.
        for start in range(0, len(vectors), _ADD_ROWS):
            index.add(vectors[start : start + _ADD_ROWS].astype(np.float32))
        return index

    def bandwidth(self, count: int) -> float:
        """Return bytes a second read and written by a copy of `count` bytes on the device."""
        torch = self._torch
        source = torch.ones(count, dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)
        return 2 * count / self._median_seconds(lambda: target.copy_(source))

    def matrix_rate(self, size: int) -> float:
        """Return operations a second of a product of two square float16 matrices."""
        torch = self._torch
        square = torch.ones((size, size), dtype=torch.float16, device="cuda")
        return 2 * size**3 / self._median_seconds(lambda: square @ square)

    def _median_seconds(self, work: Callable[[], object]) -> float:
        def finished() -> None:
            work()
            self._torch.cuda.synchronize()

        return _median_seconds(finished)


_ADD_ROWS: Final = 500_000


def _median_seconds(work: Callable[[], object]) -> float:
    times = []
    work()
    for _ in range(_REPETITIONS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return median(times)
