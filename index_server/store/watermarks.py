"""Writes are slowed, and then refused, before the disk or the memory is full. Reads never are."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sealpool.errors import ResourceExhausted
from sealpool.runtime import control_group

_THROTTLED_RETRY_S: Final = 1.0
_REFUSED_RETRY_S: Final = 15.0
_LOOK_AGAIN_S: Final = 0.2


def used_disk_share(directory: Path) -> float:
    """Return which share of the file system of `directory` is not free for us."""
    status = os.statvfs(directory)
    return 1 - status.f_bavail / max(1, status.f_blocks)


def resident_bytes() -> int:
    """Return the memory of this process that is its own: resident, without the pages of files that it has mapped."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def memory_limit(configured_bytes: int) -> int:
    """Return the smaller of the setting and the limit of this process's control group; 0 where there is neither."""
    return min((limit for limit in (configured_bytes, control_group.memory_limit()) if limit), default=0)


class Watermarks:
    """Refuses writes by how full disk and memory are. The first mark only slows a client that honours `retry_after_s`.

    Parameters
    ----------
    disk_throttle_share, disk_refuse_share, memory_throttle_share, memory_refuse_share
        Shares of the disk and of the memory limit from which on a write is told to come again soon, or much later.
    memory_limit_bytes
        0 means that memory is not looked at.
    disk_share, memory_bytes, clock
        What is read, and how often: a look is good for 0.2 s.

    Threads: any.
    """

    def __init__(
        self,
        directory: Path,
        *,
        disk_throttle_share: float,
        disk_refuse_share: float,
        memory_limit_bytes: int,
        memory_throttle_share: float = 0.9,
        memory_refuse_share: float = 0.97,
        disk_share: Callable[[Path], float] = used_disk_share,
        memory_bytes: Callable[[], int] = resident_bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._disk_marks = (disk_throttle_share, disk_refuse_share)
        self._memory_marks = (memory_throttle_share, memory_refuse_share)
        self._memory_limit_bytes = memory_limit_bytes
        self._disk_share, self._memory_bytes, self._clock = disk_share, memory_bytes, clock
        self._looked_at = float("-inf")
        self._shares = (0.0, 0.0)

    @property
    def memory_limit_bytes(self) -> int:
        """Of what `shares` gives the second share; 0 for no limit."""
        return self._memory_limit_bytes

    @property
    def shares(self) -> tuple[float, float]:
        """How full disk and memory are, 0 to 1, as of at most 0.2 s ago."""
        now = self._clock()
        if now - self._looked_at >= _LOOK_AGAIN_S:
            limit = self._memory_limit_bytes
            self._shares = self._disk_share(self._directory), self._memory_bytes() / limit if limit else 0.0
            self._looked_at = now
        return self._shares

    def check_write(self) -> None:
        """Let a write pass, or not.

        Raises
        ------
        ResourceExhausted
            With `retry_after_s`: 1 s between the two marks, 15 s above the second.
        """
        disk, memory = self.shares
        _check("disk", disk, self._disk_marks)
        _check("memory", memory, self._memory_marks)


def _check(what: str, share: float, marks: tuple[float, float]) -> None:
    throttle, refuse = marks
    if share >= refuse:
        raise _exhausted(what, share, refuse, f"{what}_refuse_share", _REFUSED_RETRY_S)
    if share >= throttle:
        raise _exhausted(what, share, throttle, f"{what}_throttle_share", _THROTTLED_RETRY_S)


def _exhausted(what: str, share: float, mark: float, setting: str, retry_after_s: float) -> ResourceExhausted:
    used = f"a write at {share:.1%} of the {what} in use"
    return ResourceExhausted(used, limit=mark, setting=setting, retry_after_s=retry_after_s)
