"""The changes of all candidate pools of one pool, on disk in SQLite."""

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from index_server.candidates.state import CandidatePool, Change
from sealpool.durable import full_disk_is_exhaustion, sync_directory
from sealpool.types import ItemId

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS campaign (
    name TEXT PRIMARY KEY,
    policy TEXT NOT NULL,           -- '' once the candidate pool was dropped
    first_version INTEGER NOT NULL  -- where the one before it ended
) STRICT;
CREATE TABLE IF NOT EXISTS change (
    campaign TEXT NOT NULL,
    version INTEGER NOT NULL,
    pool_version INTEGER NOT NULL,
    added BLOB NOT NULL,            -- each a JSON list of ids
    removed BLOB NOT NULL,
    labelled BLOB NOT NULL,
    expanded BLOB NOT NULL,
    PRIMARY KEY (campaign, version)
) STRICT;
CREATE INDEX IF NOT EXISTS change_pool_version ON change (pool_version);
"""


class Journal:
    """Writes changes before they are made, and gives them back at start.

    The pool's items lie elsewhere (in the store), and one event may touch both: items are replaced or deleted, and
    candidates with them. The order is: the candidate pools' changes here, named with the pool version that is about to
    be; then that version in the store. So at any moment the truth is: **a change counts if and only if the store has
    reached its pool version.** Whatever names a later one belongs to a commit that never happened. It is removed at
    start and before each write; who sees a commit fail calls `discard` before the next one, which would use the same
    pool version again.

    Threads: any.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with full_disk_is_exhaustion("the candidates", path.parent), _as_os_error():
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
        sync_directory(path.parent)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def load(self, pool_version: int) -> tuple[dict[str, CandidatePool], dict[str, int]]:
        """Return the candidate pools by campaign, and for campaigns whose one was dropped the version it ended at."""
        with self._transaction(pool_version) as cursor:
            campaigns = cursor.execute("SELECT name, policy, first_version FROM campaign ORDER BY name").fetchall()
            pools = {
                name: CandidatePool(policy=policy, first_version=first) for name, policy, first in campaigns if policy
            }
            ended = {name: first for name, policy, first in campaigns if not policy}
            for name, *row in cursor.execute(
                "SELECT campaign, version, pool_version, added, removed, labelled, expanded FROM change "
                "ORDER BY campaign, version"
            ):
                pools[name].apply(_change(*row))
        return pools, ended

    def begin(self, campaign: str, candidates: CandidatePool, change: Change | None, *, pool_version: int) -> None:
        """Keep a new candidate pool, and its first change."""
        with self._transaction(pool_version) as cursor:
            cursor.execute(
                "INSERT OR REPLACE INTO campaign VALUES (?, ?, ?)", (campaign, candidates.policy, candidates.version)
            )
            _insert(cursor, {} if change is None else {campaign: change})

    def write(self, changes: Mapping[str, Change], *, pool_version: int) -> None:
        """Keep changes by campaign, all or none, while the store is at `pool_version`."""
        with self._transaction(pool_version) as cursor:
            _insert(cursor, changes)

    def discard(self, *, pool_version: int) -> None:
        """Remove changes that name a pool version above `pool_version`."""
        self.write({}, pool_version=pool_version)

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


@contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise OSError(f"candidates: {error}") from error


def _insert(cursor: sqlite3.Cursor, changes: Mapping[str, Change]) -> None:
    cursor.executemany(
        "INSERT INTO change VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (name, c.version, c.pool_version, *map(_to_blob, (c.added, c.removed, c.labelled, c.expanded)))
            for name, c in changes.items()
        ],
    )


def _change(version: int, pool_version: int, added: bytes, removed: bytes, labelled: bytes, expanded: bytes) -> Change:
    return Change(
        version=version,
        pool_version=pool_version,
        added=_from_blob(added),
        removed=_from_blob(removed),
        labelled=_from_blob(labelled),
        expanded=_from_blob(expanded),
    )


def _to_blob(ids: Sequence[ItemId]) -> bytes:
    return json.dumps(list(ids), ensure_ascii=False, separators=(",", ":")).encode()


def _from_blob(blob: bytes) -> list[ItemId]:
    return [ItemId(item_id) for item_id in json.loads(blob)]
