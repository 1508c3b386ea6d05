"""Locks between learners that share a data_dir: flock on a file, which ends with the process that holds it.

Linux turns it into a lock of the whole file at the server on NFSv4 and on CephFS. There, that of a machine which died
ends with its lease (NFS: 90 s by default), that of a process on a machine which lives at once.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from sealpool.errors import FailedPrecondition

_WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class Lock:
    """A lock that is held until it is closed; a context manager."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)

    def is_of(self, path: Path) -> bool:
        """Whether the file that is locked is the one at `path`."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), path.stat())
        except FileNotFoundError:
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def take(path: Path) -> Lock | None:
    """Return the lock of a file, which is made where there is none; None if somebody has it, or removed it just now.

    Raises
    ------
    FailedPrecondition
        The file system has no locks.
    """
    try:
        lock = _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    if lock.is_of(path):
        return lock
    lock.close()  # of a file that is gone: another process may have the lock of one that was made since
    return None


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Wait for the lock of a file and hold it. Raises as `take` does."""
    with _locked(path, fcntl.LOCK_EX):
        yield


def _locked(path: Path, operation: int) -> Lock:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _WITHOUT_LOCKS:
            raise FailedPrecondition(
                f"data_dir lies on a file system without locks ({error.strerror}): re-embedding needs one that has them"
            ) from error
        raise
    return Lock(descriptor)
