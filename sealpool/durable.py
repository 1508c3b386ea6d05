"""Files that are on disk when we say so: for the services that keep files of their own."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sealpool.errors import ResourceExhausted

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_STALE_TRIES = 3
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded", "File too large", "database or disk is full")


def sync_file(path: Path) -> None:
    """Wait until the file's content is on disk."""
    _sync(path, os.O_RDONLY)


def sync_directory(path: Path) -> None:
    """Wait until the directory's entries are on disk."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def sync_files(paths: Iterable[Path]) -> None:
    """Wait until files, and then their directories, are on disk."""
    directories = {}
    for path in paths:
        sync_file(path)
        directories[path.parent] = True
    for directory in directories:
        sync_directory(directory)


def sync_tree(root: Path) -> None:
    """Wait until everything below `root`, and itself, is on disk."""
    for directory, _, names in os.walk(root):
        for name in names:
            sync_file(Path(directory, name))
        sync_directory(Path(directory))


def make_directory(path: Path) -> None:
    """Make a directory where there is none, and those above it, each on disk before something is put into it."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(exist_ok=True)
        sync_directory(path.parent)


def write_durably(path: Path, content: bytes, *, writer: str = "") -> None:
    """Put `content` into `path` whole, on disk, in place of what was there: after a crash it is either or.

    Parameters
    ----------
    writer
        Tells this process from others that may write the same path at the same time; the last one to end wins. ""
        where there is no other.
    """
    temporary = path.with_name(f".{path.name}.{writer}.new" if writer else f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def read_whole(path: Path) -> bytes:
    """Read a file that another machine may replace or delete meanwhile: whole as it was, or as it is.

    Raises
    ------
    FileNotFoundError
        There is none.
    """
    for _ in range(_STALE_TRIES):
        try:
            return path.read_bytes()
        except OSError as error:
            # NFS's word for a file that another machine took away while it was open here: the name is looked up again.
            if error.errno != errno.ESTALE:
                raise
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


@contextmanager
def full_disk_is_exhaustion(what: str, path: Path) -> Iterator[None]:
    """Turn the errors of a full disk, however a library dresses them, into ResourceExhausted."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if not is_disk_full(error):
            raise
        status = os.statvfs(path)
        free = status.f_bavail * status.f_frsize
        raise ResourceExhausted(f"disk space for {what}", limit=free, setting="data_dir") from error


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that the disk is full. Lance's say so in their text alone."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(text in str(error) for text in _FULL_TEXTS)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
