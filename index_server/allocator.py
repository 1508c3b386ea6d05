"""How this process gives memory back."""

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_MAPPED_BYTES: Final = 16 << 20
_KEPT_BYTES: Final = 64 << 20
_ARENAS: Final = 2


def return_large_blocks_at_once() -> None:
    """Have the C library give blocks of 16 MiB and more back to the system at once, and keep no more than 64 MiB else.

    glibc raises its own threshold up to 32 MiB, and has an arena for every few threads, where what Lance's threads free
    stays. What is smaller than 16 MiB is kept, because the chunks of an answer are: taken anew from the system each
    time, page by page, they made growing a candidate pool of 200,000 × 256 half as slow again (0.09 s for 0.06 s).
    Other C libraries than glibc have no `mallopt`, or ignore this.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
