"""Records what a process does to the files below one directory, with the library in file_recorder.c."""

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

_HEADER = struct.Struct("<B3xIIIQqQ")
_SOURCE = Path(__file__).with_suffix(".c")


class Kind(IntEnum):
    """What a record tells of. The numbers are those of file_recorder.c."""

    CREATED = 1
    WRITE = 2
    TRUNCATE = 3
    SYNC_FILE = 4
    SYNC_DIRECTORY = 5
    RENAME = 6
    UNLINK = 7
    LINK = 8
    MAKE_DIRECTORY = 9
    REMOVE_DIRECTORY = 10
    MARK = 11
    MAPPED = 12
    UNKNOWN = 13


@dataclass(frozen=True, slots=True)
class Record:
    """One call that changed something. Paths are relative to the directory recorded; a mark has its text as `path`."""

    kind: Kind
    inode: int
    offset: int
    path: str
    other: str
    data: bytes


def missing_tool() -> str:
    """Return why nothing can be recorded here, "" if it can."""
    if not os.path.exists("/proc/self/fd"):  # noqa: PTH110 - it is no path to work with
        return "the recorder needs Linux"
    return "" if shutil.which("gcc") else "the recorder is compiled with gcc, which is not here"


def compile_recorder(folder: Path) -> Path:
    """Compile the library into `folder` and return its path."""
    library = folder / "file_recorder.so"
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
    command = ["gcc", *flags, "-o", str(library), str(_SOURCE), "-ldl", "-lpthread"]
    subprocess.run(command, check=True, timeout=60)
    return library


def recorded_environment(library: Path, *, root: Path, log: Path) -> dict[str, str]:
    """Return what a process must find in its environment, so that what it does below `root` is written to `log`."""
    return {
        "LD_PRELOAD": str(library),
        "SEALPOOL_RECORD_ROOT": str(root),
        "SEALPOOL_RECORD_LOG": str(log),
        "SEALPOOL_RECORD_FAST": "1",
    }


def read_records(log: Path) -> list[Record]:
    """Return the records in `log`, in order."""
    return list(_records(log.read_bytes()))


def _records(content: bytes) -> Iterator[Record]:
    position = 0
    while position < len(content):
        kind, path_length, other_length, _, inode, offset, data_length = _HEADER.unpack_from(content, position)
        path_end = position + _HEADER.size + path_length
        data_start = path_end + other_length
        yield Record(
            Kind(kind),
            inode,
            offset,
            content[position + _HEADER.size : path_end].decode(),
            content[path_end:data_start].decode(),
            content[data_start : data_start + data_length],
        )
        position = data_start + data_length
