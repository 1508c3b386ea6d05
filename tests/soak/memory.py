"""Resident memory and open files of a process over time."""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at one moment."""

    at_s: float
    resident_bytes: int
    open_files: int


class Watch:
    """Samples a process from `start` to `stop`."""

    def __init__(self, process_id: int, *, every_s: float) -> None:
        self._folder = Path(f"/proc/{process_id}")
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")
        self.samples: list[Sample] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            pages = int((self._folder / "statm").read_text().split()[1])
            files = len(list((self._folder / "fd").iterdir()))
            self.samples.append(Sample(time.monotonic(), pages * os.sysconf("SC_PAGE_SIZE"), files))


@dataclass(frozen=True, slots=True)
class Trend:
    """How a process did over the second half of the time."""

    mean_bytes: float
    growth_bytes: float
    """By the line through all samples of that half, over that half."""
    most_files_first_half: int
    most_files_second_half: int

    @property
    def allowed_bytes(self) -> float:
        """How much growth counts as stable: a tenth, and what allocators keep back of the largest calls."""
        return 0.1 * self.mean_bytes + 24 * MEBIBYTE

    def lines(self) -> list[str]:
        """Return the trend in words."""
        growth, allowed = self.growth_bytes / MEBIBYTE, self.allowed_bytes / MEBIBYTE
        return [
            f"resident memory {self.mean_bytes / MEBIBYTE:.0f} MiB, in the second half {growth:+.1f} MiB "
            f"(up to {allowed:.0f} allowed)",
            f"open files: at most {self.most_files_first_half}, in the second half {self.most_files_second_half}",
        ]

    def faults(self) -> list[str]:
        """Return what is not stable."""
        wrong = []
        if self.growth_bytes > self.allowed_bytes:
            wrong.append(f"memory grew by {self.growth_bytes / MEBIBYTE:.0f} MiB in the second half")
        if self.most_files_second_half > 1.2 * self.most_files_first_half + 16:
            wrong.append(f"open files rose from {self.most_files_first_half} to {self.most_files_second_half}")
        return wrong


def trend(samples: list[Sample]) -> Trend:
    """Return the trend of at least four samples."""
    middle = len(samples) // 2
    first, second = samples[:middle], samples[middle:]
    times = np.array([sample.at_s for sample in second])
    sizes = np.array([sample.resident_bytes for sample in second], float)
    slope = float(np.polyfit(times - times[0], sizes, 1)[0])
    return Trend(
        mean_bytes=float(sizes.mean()),
        growth_bytes=slope * float(times[-1] - times[0]),
        most_files_first_half=max(sample.open_files for sample in first),
        most_files_second_half=max(sample.open_files for sample in second),
    )
