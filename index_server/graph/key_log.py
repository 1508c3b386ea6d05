"""Which keys came and went with each version of a pool, on disk in SQLite."""

import sqlite3
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index_server.graph.lists import Keys
from sealpool.durable import full_disk_is_exhaustion, sync_directory

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS base (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    generation INTEGER NOT NULL,   -- of the numbering
    version INTEGER NOT NULL,      -- of the pool
    keys INTEGER NOT NULL,
    retired BLOB NOT NULL,         -- a bit for each key
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS event (
    version INTEGER PRIMARY KEY,
    appended INTEGER NOT NULL,
    retired BLOB NOT NULL,         -- keys, int64
    checksum INTEGER NOT NULL      -- of this and of the event before
) STRICT;
CREATE TABLE IF NOT EXISTS last (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    checksum INTEGER NOT NULL      -- of the last event, or of the base
) STRICT;
"""
_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class DamagedLog(Exception):
    """The file is not what was written. Its keys can no longer be told."""


@dataclass(frozen=True, kw_only=True)
class Numbering:
    """Keys at one version of the pool.

    Parameters
    ----------
    generation
        Counts how often keys were given anew.
    retired
        For each key whether its item is gone: (keys,) bool.
    events
        How many had to be read for it.
    """

    generation: int
    version: int
    retired: NDArray[np.bool_]
    events: int = 0


class KeyLog:
    """Writes down which keys come and go before they do, and gives the numbering back at start.

    As in the candidates' journal, **an event counts if and only if the store has reached its pool version**; others
    are removed at start and before the next one. Each event's checksum includes that of the one before, so a changed,
    missing or foreign event is found: a numbering that fits the count of items, but not the items, would be wrong in
    silence. The rollback journal is kept for the same reason: SQLite drops a frame of a write-ahead log that fails its
    checksum, and every transaction after it, without a word.

    Threads: any.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._errors():
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        with ExitStack() as undo:
            undo.callback(self._connection.close)
            with self._errors():
                self._connection.execute("PRAGMA journal_mode = TRUNCATE")
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.executescript(_SCHEMA)
            sync_directory(path.parent)
            undo.pop_all()

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return self._path.stat().st_size

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def load(self, version: int) -> Numbering | None:
        """Return the numbering at the store's `version`, None if nothing was written yet; forget later events.

        Raises
        ------
        DamagedLog
            The file is not what was written, or tells of a base later than `version`.
        """
        with self._transaction() as cursor:
            base = cursor.execute("SELECT generation, version, keys, retired, checksum FROM base").fetchone()
            if base is None:
                return None
            checksum = _base_checksum(*base[:4])
            if checksum != base[4] or base[1] > version:
                raise DamagedLog(str(self._path))
            numbering = self._replay(cursor, Numbering(generation=base[0], version=base[1], retired=_mask(*base[2:4])))
            self._forget_after(cursor, version)
            kept = numbering if numbering.version <= version else None
        return kept if kept is not None else self.load(version)

    def record(self, version: int, *, appended: int, retired: Keys) -> None:
        """Keep what the pool's `version` will bring, while the store is before it."""
        with self._transaction() as cursor:
            self._forget_after(cursor, version - 1)
            (before,) = cursor.execute("SELECT checksum FROM last").fetchone()
            blob = retired.astype("<i8").tobytes()
            checksum = _event_checksum(before, version, appended, blob)
            cursor.execute("INSERT INTO event VALUES (?, ?, ?, ?)", (version, appended, blob, checksum))
            cursor.execute("INSERT OR REPLACE INTO last VALUES (1, ?)", (checksum,))

    def discard(self, version: int) -> None:
        """Remove events that name a pool version above `version`."""
        with self._transaction() as cursor:
            self._forget_after(cursor, version)

    def rebase(self, numbering: Numbering) -> None:
        """Keep `numbering` in place of everything before."""
        keys, blob = len(numbering.retired), np.packbits(numbering.retired).tobytes()
        checksum = _base_checksum(numbering.generation, numbering.version, keys, blob)
        with self._transaction() as cursor:
            cursor.execute("DELETE FROM event")
            row = (numbering.generation, numbering.version, keys, blob, checksum)
            cursor.execute("INSERT OR REPLACE INTO base VALUES (1, ?, ?, ?, ?, ?)", row)
            cursor.execute("INSERT OR REPLACE INTO last VALUES (1, ?)", (checksum,))

    def _replay(self, cursor: sqlite3.Cursor, base: Numbering) -> Numbering:
        checksum = _base_checksum(base.generation, base.version, len(base.retired), np.packbits(base.retired).tobytes())
        keys, version, gone, events = len(base.retired), base.version, [np.flatnonzero(base.retired)], 0
        for event in cursor.execute("SELECT version, appended, retired, checksum FROM event ORDER BY version"):
            checksum = _event_checksum(checksum, *event[:3])
            if checksum != event[3]:
                raise DamagedLog(str(self._path))
            version, keys, events = event[0], keys + event[1], events + 1
            gone.append(np.frombuffer(event[2], "<i8").astype(np.int64))
        if cursor.execute("SELECT checksum FROM last").fetchone() != (checksum,):
            raise DamagedLog(str(self._path))
        retired = np.zeros(keys, np.bool_)
        retired[np.concatenate(gone)] = True
        return Numbering(generation=base.generation, version=version, retired=retired, events=events)

    @staticmethod
    def _forget_after(cursor: sqlite3.Cursor, version: int) -> None:
        if not cursor.execute("DELETE FROM event WHERE version > ?", (version,)).rowcount:
            return
        cursor.execute(
            "INSERT OR REPLACE INTO last SELECT 1, coalesce("
            "(SELECT checksum FROM event ORDER BY version DESC LIMIT 1), (SELECT checksum FROM base))"
        )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Cursor]:
        with self._lock, self._errors():
            cursor = self._connection.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    cursor.execute("ROLLBACK")
                cursor.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with full_disk_is_exhaustion("the neighbour graph", self._path.parent):
            try:
                yield
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
                    raise DamagedLog(str(self._path)) from error
                raise OSError(f"neighbour graph: {error}") from error


def _mask(keys: int, blob: bytes) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(blob, np.uint8), count=keys).astype(np.bool_)


def _base_checksum(generation: int, version: int, keys: int, blob: bytes) -> int:
    return zlib.crc32(blob, zlib.crc32(struct.pack("<3q", generation, version, keys)))


def _event_checksum(before: int, version: int, appended: int, blob: bytes) -> int:
    return zlib.crc32(blob, zlib.crc32(struct.pack("<2q", version, appended), before))
