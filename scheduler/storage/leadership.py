"""Who leads the schedulers of one database: the epoch that fences rounds, and the locks that leaders hold."""

import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from scheduler.storage.models import Leadership
from scheduler.storage.store import Store
from sealpool.errors import Unavailable

if TYPE_CHECKING:
    import psycopg

_ROW = 1
_LOCK_KEY = 0x5EA1_9002
"""Of the advisory lock that the leader's session holds."""
_CHANNEL = "sealpool_scheduler"
_COMMITS_MS = 2_000
_FROZEN_S = 2
"""For how long a transaction of an earlier leader may do nothing while another waits to lead. It can be lost: whatever
a round commits is done again."""
_SILENCE_MS = 3_000
"""After which the leader takes its database for dead."""
_LEADER_IDLE_MS = 6_000
"""After which PostgreSQL takes a leader for dead whose machine is gone or frozen. Above `_SILENCE_MS` and the pause
between two heartbeats, so that an old leader has stopped before there is a new one."""


def begin_epoch(session: Session, *, holder: str, now: datetime) -> int:
    """Begin the next epoch and return it.

    Waits for phases that are being committed in the one before, but for those whose process seems frozen.

    Raises
    ------
    Unavailable
        They take too long, or the database takes no writes (a standby, say).
    """
    try:
        return _begin_epoch(session, holder=holder, now=now)
    except DBAPIError as error:
        raise Unavailable(f"the scheduler's database: {error.orig}") from error


def _begin_epoch(session: Session, *, holder: str, now: datetime) -> int:
    if session.get_bind().dialect.name == "postgresql":
        session.execute(_END_FROZEN, {"frozen_s": _FROZEN_S})
        session.execute(text(f"SET LOCAL lock_timeout = {_COMMITS_MS}"))
    row = session.get(Leadership, _ROW, with_for_update=True)
    if row is None:
        row = Leadership(id=_ROW, epoch=0, holder="", since=now)
        session.add(row)
    row.epoch += 1
    row.holder = holder
    row.since = now
    session.flush()
    return row.epoch


_END_FROZEN = text(
    "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE relation = 'leadership'::regclass AND mode = 'RowShareLock' AND granted AND pid <> pg_backend_pid()"
    " AND state LIKE 'idle in transaction%' AND state_change < clock_timestamp() - make_interval(secs => :frozen_s)"
)
"""Ends the sessions that keep the epoch standing, and do nothing."""


def is_epoch(session: Session, epoch: int) -> bool:
    """Whether `epoch` is the one that stands. If so it stands until the transaction ends."""
    query = select(Leadership.epoch).where(Leadership.id == _ROW).with_for_update(read=True)
    return session.scalar(query) == epoch


class PostgresLock:
    """An advisory lock of a session of its own, which PostgreSQL frees when the session ends, however it ends.

    Connections must reach the database itself: a proxy that shares sessions among transactions loses the lock.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None

    def take(self) -> bool:
        """Try to become the holder; return at once. Unavailable: the database is away."""
        with _lost():
            connection = self._connection = self._connection or self._connect()
            taken = connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK_KEY,)).fetchone()
            if not taken or not taken[0]:
                return False
            connection.execute(f"LISTEN {_CHANNEL}")
            return True

    def check(self) -> None:
        """Raise Unavailable if the session, and the lock with it, is gone."""
        with _lost():
            self._held().execute("SELECT 1")

    def hear(self, timeout_s: float) -> Sequence[str]:
        """Return what others told, after `timeout_s` at most; Unavailable as `check`."""
        with _lost():
            return [told.payload for told in self._held().notifies(timeout=timeout_s, stop_after=1)]

    def tell(self, name: str) -> None:
        """Tell the holder, whoever it is; Unavailable. What is told while there is none is lost."""
        with self._store.reading() as session:
            session.execute(select(func.pg_notify(_CHANNEL, name)))

    def release(self) -> None:
        """Give the lock up, if it is held. A lock that cannot be given up is gone with its session."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            # Closing alone frees it once the server has noticed.
            with _lost():
                connection.execute("SELECT pg_advisory_unlock_all()")
        except Unavailable:
            return
        finally:
            connection.close()

    def _held(self) -> "psycopg.Connection[tuple[object, ...]]":
        if self._connection is None:
            raise Unavailable("the lock is not held")
        return self._connection

    def _connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        import psycopg  # an extra, which SQLite needs not

        engine = self._store.engine
        arguments, options = engine.dialect.create_connect_args(engine.url)
        told = " ".join(f"-c {name}={value}" for name, value in _SERVER_OPTIONS.items())
        options["options"] = f"{options.get('options', '')} {told}".strip()
        return psycopg.connect(*arguments, **{**options, **_CLIENT_OPTIONS, "autocommit": True})


_SERVER_OPTIONS = {
    "statement_timeout": _SILENCE_MS,
    "idle_session_timeout": _LEADER_IDLE_MS,
    "tcp_keepalives_idle": 2,
    "tcp_keepalives_interval": 1,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": _LEADER_IDLE_MS,
}
_CLIENT_OPTIONS: dict[str, int] = {
    "connect_timeout": 3,
    "keepalives_idle": 1,
    "keepalives_interval": 1,
    "keepalives_count": 2,
    "tcp_user_timeout": _SILENCE_MS,
}


@contextmanager
def _lost() -> Iterator[None]:
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise Unavailable(f"the scheduler's database: {' '.join(str(error).split())}") from error


class FileLock:
    """A locked file beside a SQLite database, which the system frees when the process ends, however it ends.

    Holds among the processes of one machine, as SQLite's own locks do.
    """

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.name}.leader")
        self._told = database.with_name(f"{database.name}.told")
        self._file: BinaryIO | None = None
        self._released = threading.Event()

    def take(self) -> bool:
        """Try to become the holder; return at once. Unavailable: the file cannot be opened."""
        with _unreadable():
            file = self._path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        self._released.clear()
        return True

    def check(self) -> None:
        """Raise Unavailable if the file was put away: another process can lock its successor."""
        if self._file is None:
            raise Unavailable("the lock is not held")
        with _unreadable():
            if not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
                raise Unavailable(f"{self._path.name} was replaced")

    def hear(self, timeout_s: float) -> Sequence[str]:
        """Return what others told, after `timeout_s` at most; Unavailable."""
        self._released.wait(timeout_s)
        with _unreadable():
            if not self._told.exists() or not self._told.stat().st_size:
                return []
            with self._told.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                names = file.read().decode().split()
                file.truncate(0)
        return names

    def tell(self, name: str) -> None:
        """Tell the holder, whoever it is; Unavailable."""
        with _unreadable(), self._told.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(f"{name}\n".encode())

    def release(self) -> None:
        """Give the lock up, if it is held."""
        file, self._file = self._file, None
        self._released.set()
        if file is not None:
            file.close()


@contextmanager
def _unreadable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"the file that says who leads: {error.strerror}") from error


def lock_for(store: Store) -> PostgresLock | FileLock:
    """Return the lock that suits the database."""
    if store.engine.dialect.name == "postgresql":
        return PostgresLock(store)
    database = store.engine.url.database
    if database is None:
        raise AssertionError("open_engine refuses SQLite in memory")
    return FileLock(Path(database))
