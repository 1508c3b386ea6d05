"""What the container that this process runs in may take."""

import contextlib
from pathlib import Path
from typing import Final

_MEMORY_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")


def memory_limit(*, file: Path = _MEMORY_LIMIT) -> int:
    """Return the bytes that this process's control group may take; 0 where it has no limit, or there is none."""
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
        return int(file.read_text())
    return 0
