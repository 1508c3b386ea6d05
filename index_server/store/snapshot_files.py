"""Where snapshots lie: a local directory, or below an object store's URL."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit, urlunsplit

from pyarrow import fs

from sealpool.durable import full_disk_is_exhaustion, make_directory, sync_file, sync_tree
from sealpool.errors import InvalidArgument, Unavailable

_PIECE_BYTES: Final = 8 << 20


class SnapshotPlace:
    """A directory that a URI names: a path, file://, s3://, gs:// or, where pyarrow was built with it, abfs:// and az://.

    Parameters of an object store may follow the URL as pyarrow knows them, or come from the environment.

    Raises
    ------
    InvalidArgument
        No such kind of store.
    """

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        # Keys may be part of a URL, and have no place in a message.
        self.shown = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        self._local = "://" not in uri or uri.startswith("file://")
        try:
            url = str(Path(uri).absolute()) if "://" not in uri else _known(uri)
            self._fs, self._root = fs.FileSystem.from_uri(url)
        except (ValueError, NotImplementedError, OSError) as error:
            raise InvalidArgument("uri", f"{self.shown!r} cannot be used as a place for snapshots") from error

    def is_empty(self) -> bool:
        """Whether there is nothing."""
        with self._failures():
            return not self._fs.get_file_info(fs.FileSelector(self._root, allow_not_found=True))

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        with self._failures():
            return bool(self._fs.get_file_info(f"{self._root}/{name}").type == fs.FileType.File)

    def read(self, name: str) -> bytes:
        """Return the content of a small file."""
        with self._failures(), self._fs.open_input_stream(f"{self._root}/{name}") as stream:
            content: bytes = stream.read()
            return content

    def write(self, name: str, content: bytes) -> None:
        """Put `content` into a file, on disk if the place is local."""
        with self._failures(), self._output(name) as stream:
            stream.write(content)
        self._sync(name)

    def upload(self, path: Path, name: str) -> tuple[int, str]:
        """Copy a local file here; return its size and SHA-256."""
        with self._failures(), path.open("rb") as source, self._output(name) as target:
            copied = _copy(source, target)
        self._sync(name)
        return copied

    def download(self, name: str, path: Path) -> tuple[int, str]:
        """Copy a file from here to a new local file; return its size and SHA-256. It is not synced."""
        with self._failures():
            source = self._fs.open_input_stream(f"{self._root}/{name}")
        with self._failures(), source, path.open("xb") as target:
            return _copy(source, target)

    def sync(self) -> None:
        """Wait until all of a local place is on disk."""
        if self._local:
            sync_tree(Path(self._root))

    def _output(self, name: str) -> Any:
        path = f"{self._root}/{name}"
        if self._local:
            make_directory(Path(path).parent)
        return self._fs.open_output_stream(path)

    def _sync(self, name: str) -> None:
        if self._local:
            sync_file(Path(self._root, name))

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            if self._local:
                with full_disk_is_exhaustion("the snapshot", _existing(Path(self._root))):
                    yield
            else:
                yield
        except OSError as error:
            if self._local or isinstance(error, FileNotFoundError):
                raise
            raise Unavailable(f"{self.shown}: {error}", field="uri") from error


def _known(uri: str) -> str:
    # Lance and Arrow disagree about the scheme.
    return "abfs://" + uri.removeprefix("az://") if uri.startswith("az://") else uri


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _copy(source: IO[bytes], target: IO[bytes]) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    while piece := source.read(_PIECE_BYTES):
        target.write(piece)
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()
