"""The changes of all candidate pools of one pool, on disk in SQLite."""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from index_server.candidates.state import CandidatePool, Change, Classes
from index_server.ports import Rows, Scores
from sealpool.durable import full_disk_is_exhaustion, sync_directory
from sealpool.types import ItemId

_FORMAT: Final = 2
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS campaign (
    name TEXT PRIMARY KEY,
    policy TEXT NOT NULL,            -- '' once the candidate pool was dropped
    first_version INTEGER NOT NULL   -- where the one before it ended
) STRICT;
CREATE TABLE IF NOT EXISTS change (
    campaign TEXT NOT NULL,
    version INTEGER NOT NULL,
    pool_version INTEGER NOT NULL,
    added BLOB NOT NULL,             -- Arrow IPC: id, source (its id or null), score
    told TEXT NOT NULL,              -- JSON: lists of ids `removed`, `deleted`, `labelled`, `expanded`; `classes` by id
    PRIMARY KEY (campaign, version)
) STRICT;
CREATE INDEX IF NOT EXISTS change_pool_version ON change (pool_version);
"""
_ADDED: Final = pa.schema([("id", pa.large_string()), ("source", pa.large_string()), ("score", pa.float32())])


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredChange:
    """A Change by ids, as it lies on disk. `sources` are None where there is none."""

    version: int
    pool_version: int
    added: Sequence[ItemId]
    sources: Sequence[ItemId | None]
    scores: Scores
    removed: Sequence[ItemId]
    deleted: Sequence[ItemId]
    labelled: Sequence[ItemId]
    classes: Mapping[ItemId, Classes]
    expanded: Sequence[ItemId]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredCampaign:
    """A campaign as it lies on disk; `policy` is "" once its candidate pool was dropped."""

    policy: str
    first_version: int
    changes: Sequence[StoredChange]


class Journal:
    """Writes changes before they are made, and gives them back at start.

    The pool's items lie elsewhere (in the store), and one event may touch both: items are replaced or deleted, and
    candidates with them. The order is: the candidate pools' changes here, named with the pool version that is about to
    be; then that version in the store. So at any moment the truth is: **a change counts if and only if the store has
    reached its pool version.** Whatever names a later one belongs to a commit that never happened. It is removed at
    start and before each write; who sees a commit fail calls `discard` before the next one, which would use the same
    pool version again.

    `ids_at` gives the ids of rows as Arrow keeps strings.

    Threads: any.

    Raises
    ------
    OSError
        The file cannot be read, or another version of sealpool wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with ExitStack() as undo, full_disk_is_exhaustion("the candidates", path.parent), _as_os_error():
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            undo.callback(self._connection.close)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            _check_format(self._connection, path)
            self._connection.executescript(_SCHEMA)
            sync_directory(path.parent)
            undo.pop_all()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def load(self, pool_version: int) -> dict[str, StoredCampaign]:
        """Return the campaigns by name, those too whose candidate pool was dropped."""
        with self._transaction(pool_version) as cursor:
            campaigns = cursor.execute("SELECT name, policy, first_version FROM campaign ORDER BY name").fetchall()
            changes: dict[str, list[StoredChange]] = {name: [] for name, *_ in campaigns}
            for name, *row in cursor.execute(
                "SELECT campaign, version, pool_version, added, told FROM change ORDER BY campaign, version"
            ):
                changes[name].append(_stored(*row))
        return {
            name: StoredCampaign(policy=policy, first_version=first, changes=changes[name])
            for name, policy, first in campaigns
        }

    def begin(
        self, campaign: str, candidates: CandidatePool, change: Change | None, ids_at: "IdsAt", *, pool_version: int
    ) -> None:
        """Keep a new candidate pool, and its first change."""
        with self._transaction(pool_version) as cursor:
            cursor.execute(
                "INSERT OR REPLACE INTO campaign VALUES (?, ?, ?)", (campaign, candidates.policy, candidates.version)
            )
            _insert(cursor, {} if change is None else {campaign: change}, ids_at)

    def write(self, changes: Mapping[str, Change], ids_at: "IdsAt", *, pool_version: int) -> None:
        """Keep changes by campaign, all or none, while the store is at `pool_version`."""
        with self._transaction(pool_version) as cursor:
            _insert(cursor, changes, ids_at)

    def discard(self, *, pool_version: int) -> None:
        """Remove changes that name a pool version above `pool_version`."""
        with self._transaction(pool_version):
            pass

    def drop(self, campaign: str, *, version: int, pool_version: int) -> None:
        """Forget the changes of a campaign whose candidate pool ended at `version`."""
        with self._transaction(pool_version) as cursor:
            cursor.execute("DELETE FROM change WHERE campaign = ?", (campaign,))
            cursor.execute("INSERT OR REPLACE INTO campaign VALUES (?, '', ?)", (campaign, version))

    @contextmanager
    def _transaction(self, pool_version: int) -> Iterator[sqlite3.Cursor]:
        with self._lock, full_disk_is_exhaustion("the candidates", self._path.parent), _as_os_error():
            cursor = self._connection.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            try:
                cursor.execute("DELETE FROM change WHERE pool_version > ?", (pool_version,))
                yield cursor
                cursor.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    cursor.execute("ROLLBACK")
                cursor.close()


IdsAt = Callable[[Rows], pa.LargeStringArray]


@contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise OSError(f"candidates: {error}") from error


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if not tables:
        connection.execute(f"PRAGMA user_version = {_FORMAT}")
    elif found != _FORMAT:
        raise OSError(f"{path.name} has format {found}, and this version of sealpool reads {_FORMAT}")


def _insert(cursor: sqlite3.Cursor, changes: Mapping[str, Change], ids_at: IdsAt) -> None:
    cursor.executemany(
        "INSERT INTO change VALUES (?, ?, ?, ?, ?)",
        [(name, c.version, c.pool_version, _added_to_blob(c, ids_at), _told_to_json(c)) for name, c in changes.items()],
    )


def _added_to_blob(change: Change, ids_at: IdsAt) -> bytes:
    sources, places = np.unique(change.sources, return_inverse=True)
    has_source = change.sources >= 0
    names = ids_at(np.maximum(sources, 0)) if has_source.any() else pa.nulls(len(sources), pa.large_string())
    columns = [
        ids_at(change.added),
        names.take(pa.array(places, mask=~has_source)),
        pa.array(change.scores, pa.float32()),
    ]
    return _to_ipc(pa.record_batch(columns, schema=_ADDED))


def _to_ipc(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _told_to_json(change: Change) -> str:
    told = {
        "removed": list(change.removed.ids),
        "deleted": list(change.deleted.ids),
        "labelled": list(change.labelled.ids),
        "expanded": list(change.expanded.ids),
        "classes": {item_id: classes for item_id, _, classes in change.classes},
    }
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def _stored(version: int, pool_version: int, added: bytes, told: str) -> StoredChange:
    columns: Any = pa.ipc.open_stream(added).read_next_batch()
    lists = json.loads(told)
    return StoredChange(
        version=version,
        pool_version=pool_version,
        added=columns["id"].to_pylist(),
        sources=columns["source"].to_pylist(),
        scores=columns["score"].to_numpy(),
        removed=lists["removed"],
        deleted=lists["deleted"],
        labelled=lists["labelled"],
        classes={item_id: tuple(classes) for item_id, classes in lists["classes"].items()},
        expanded=lists["expanded"],
    )
