"""A pool written whole to another place, and made from there again.

<uri>/pool.json  items.lance/…  HEAD  candidates.sqlite  engine.state
      manifest.json     size and SHA-256 of each, written last: without it a snapshot is incomplete
"""

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from index_server.spec import PoolSpec
from index_server.store.directory import SCRATCH
from index_server.store.head import head_bytes
from index_server.store.lance_snapshot import LanceSnapshot
from index_server.store.layout import DIRECTORIES, LanceLayout
from index_server.store.snapshot_files import SnapshotPlace
from sealpool.durable import full_disk_is_exhaustion, sync_tree
from sealpool.errors import AlreadyExists, FailedPrecondition, NotFound
from sealpool.failpoint import reach

_FORMAT: Final = 1
_MANIFEST: Final = "manifest.json"
_ABOUT: Final = "pool.json"
_CANDIDATES: Final = "candidates.sqlite"


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotInfo:
    """What a snapshot holds."""

    pool_version: int
    bytes: int
    files: int


def write_snapshot(pool_directory: Path, snapshot: LanceSnapshot, uri: str) -> SnapshotInfo:
    """Write a pool as it is at `snapshot`, with its candidate pools, to a place where there is nothing.

    The pool may be written to meanwhile, but its candidates not be compacted: what the journal says of versions up to
    that of `snapshot` must still be there.

    Raises
    ------
    AlreadyExists
        There is something at `uri`.
    InvalidArgument
        `uri` is of no known kind.
    ResourceExhausted
        The disk there is full.
    Unavailable
        The object store is away.
    """
    place = SnapshotPlace(uri)
    if not place.is_empty():
        raise AlreadyExists("snapshot", place.shown)
    entries = []
    with tempfile.TemporaryDirectory(dir=pool_directory, prefix=SCRATCH) as scratch:
        for name, path in _files(pool_directory, snapshot, Path(scratch)):
            size, digest = place.upload(path, name)
            entries.append({"path": name, "size": size, "sha256": digest})
    place.sync()
    reach("index.snapshot.before_manifest")
    about = {"format": _FORMAT, "pool_version": snapshot.version, "files": entries}
    place.write(_MANIFEST, json.dumps(about, indent=2).encode())
    place.sync()
    return _info(about)


def read_snapshot_spec(uri: str) -> PoolSpec:
    """Return what the pool of a snapshot was, its name too. Raises as `restore_snapshot`."""
    place = SnapshotPlace(uri)
    _read_manifest(place)
    try:
        return PoolSpec.from_json(json.loads(place.read(_ABOUT))["spec"])
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(f"{place.shown}: {_ABOUT} is damaged: {error}", field="uri") from error


def restore_snapshot(uri: str, into: Path) -> SnapshotInfo:
    """Put into an empty directory, synced, what a pool has beside pool.json.

    Raises
    ------
    NotFound
        There is nothing at `uri`.
    FailedPrecondition
        The snapshot is incomplete or damaged.
    InvalidArgument, ResourceExhausted, Unavailable
        As `write_snapshot`.
    """
    place = SnapshotPlace(uri)
    about = _read_manifest(place)
    with full_disk_is_exhaustion("the restored pool", into):
        for name in DIRECTORIES:
            (into / "items.lance" / name).mkdir(parents=True)
        for entry in about["files"]:
            if entry["path"] != _ABOUT:
                _restore(place, entry, into)
        sync_tree(into)
    return _info(about)


def _files(pool_directory: Path, snapshot: LanceSnapshot, scratch: Path) -> Iterator[tuple[str, Path]]:
    # First the candidates: a change that is made while items are copied belongs to a later moment.
    candidates = pool_directory / _CANDIDATES
    if candidates.exists():
        _copy_candidates(candidates, scratch / _CANDIDATES, snapshot.version)
        yield _CANDIDATES, scratch / _CANDIDATES
    yield _ABOUT, pool_directory / _ABOUT
    (scratch / "HEAD").write_bytes(head_bytes(snapshot.version))
    yield "HEAD", scratch / "HEAD"
    if (pool_directory / "engine.state").exists():
        yield "engine.state", pool_directory / "engine.state"
    layout = LanceLayout(pool_directory / "items.lance")
    for path in [*sorted(layout.root / name for name in snapshot.files), layout.manifest(snapshot.version)]:
        yield f"items.lance/{path.relative_to(layout.root).as_posix()}", path


def _copy_candidates(source: Path, target: Path, pool_version: int) -> None:
    """Copy the journal without what names a later version of the pool."""
    with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(target)) as copy:
        live.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
        tables = [name for (name,) in copy.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        with copy:
            for table in tables:
                columns = [row[1] for row in copy.execute(f'PRAGMA table_info("{table}")')]
                if "pool_version" in columns:
                    copy.execute(f'DELETE FROM "{table}" WHERE pool_version > ?', (pool_version,))  # noqa: S608


def _read_manifest(place: SnapshotPlace) -> dict[str, Any]:
    if not place.exists(_MANIFEST):
        if place.is_empty():
            raise NotFound("snapshot", place.shown, field="uri")
        raise FailedPrecondition(f"{place.shown} has no {_MANIFEST}: it is no snapshot, or incomplete", field="uri")
    try:
        about = json.loads(place.read(_MANIFEST))
        if about["format"] != _FORMAT:
            raise FailedPrecondition(f"{place.shown} has format {about['format']}, not {_FORMAT}", field="uri")
        for entry in about["files"]:
            _check_entry(entry)
        return {"pool_version": int(about["pool_version"]), "files": about["files"]}
    except (ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(f"{place.shown}: {_MANIFEST} is damaged: {error}", field="uri") from error


def _check_entry(entry: dict[str, Any]) -> None:
    path = PurePosixPath(entry["path"])
    known = path.parts[0] == "items.lance" and path.parts[1] in DIRECTORIES if len(path.parts) == 3 else path.name
    if not known or ".." in path.parts or path.is_absolute() or len(path.parts) not in (1, 3):
        raise ValueError(f"{path} is no file of a pool")
    if not isinstance(entry["size"], int) or not isinstance(entry["sha256"], str):
        raise TypeError(f"{path} has no size or no checksum")


def _restore(place: SnapshotPlace, entry: dict[str, Any], into: Path) -> None:
    path = into / entry["path"]
    try:
        copied = place.download(entry["path"], path)
    except FileNotFoundError as error:
        raise FailedPrecondition(f"{place.shown}: {entry['path']} is missing", field="uri") from error
    if copied != (entry["size"], entry["sha256"]):
        raise FailedPrecondition(f"{place.shown}: {entry['path']} is damaged: its checksum differs", field="uri")


def _info(about: dict[str, Any]) -> SnapshotInfo:
    files = about["files"]
    return SnapshotInfo(
        pool_version=about["pool_version"], bytes=sum(entry["size"] for entry in files), files=len(files)
    )
