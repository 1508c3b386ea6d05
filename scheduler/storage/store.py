"""Transactions, and who is told when one has committed."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress

from sqlalchemy import Engine
from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from scheduler.domain.clock import Clock
from scheduler.storage.engine import BUSY_TIMEOUT_S, WRITES
from sealpool.errors import Unavailable
from sealpool.runtime.tracing import NO_TRACING, Tracer

_PASSING = frozenset({"25006", "25P03"})
"""PostgreSQL: the database is read-only, as a standby after a failover; a transaction was ended for being idle."""

_SHED_WAIT_MS = 1_000


class Store:
    """The database, in transactions.

    Objects read in one stay readable after it has ended. Any thread may begin a transaction; none may hold two.

    Parameters
    ----------
    clock
        Times of what is written.
    tracer
        Makes spans of what is written.

    Attributes
    ----------
    has_one_writer
        Whether a transaction that writes is alone, as on SQLite.
    """

    def __init__(self, engine: Engine, *, clock: Clock, tracer: Tracer = NO_TRACING) -> None:
        self.clock = clock
        self._tracer = tracer
        self.engine = engine
        self.writing_engine = engine.execution_options(**{WRITES: True})
        self._reads = sessionmaker(engine, expire_on_commit=False)
        self._writes = sessionmaker(self.writing_engine, expire_on_commit=False)
        self._listeners: list[Callable[[], None]] = []
        self.has_one_writer = engine.dialect.name == "sqlite"
        # Waiting here is fair and wakes at once, where SQLite's busy handler sleeps and polls.
        self._turn: AbstractContextManager[object] = threading.Lock() if self.has_one_writer else nullcontext()

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each transaction that wrote. It must be quick and must not raise."""
        self._listeners.append(listener)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Begin a transaction that only reads.

        Raises
        ------
        Unavailable
            The database is away, or busy for too long.
        """
        with database_errors(), self._reads.begin() as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Begin a transaction that commits at the end of the block, or does nothing if the block raises.

        Raises
        ------
        Unavailable
            The database is away, or busy for too long. Nothing was written, unless it went away while committing.
        """
        # The span has the wait for the turn in it, and the commit with its fsync.
        with self._tracer.span("store.transaction"), database_errors(), self._turn, self._writes.begin() as session:
            yield session
        for listener in self._listeners:
            listener()

    def shed_log(self) -> None:
        """Write SQLite's log into its file, and empty it, unless somebody reads or writes for long.

        Until then the log holds what pages were before they changed; the next time that nobody reads empties it too.
        """
        if not self.has_one_writer:
            return
        with database_errors(), self._turn, self.engine.connect() as connection:
            cursor = connection.connection.cursor()  # not in a transaction, as SQLAlchemy's own statements are
            with closing(cursor), suppress(sqlite3.OperationalError):
                cursor.execute(f"PRAGMA busy_timeout = {_SHED_WAIT_MS}")
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            connection.connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn what a database raises that is away or busy into Unavailable."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        raise Unavailable(f"the scheduler's database: {getattr(error, 'orig', None) or error}") from error
    except DatabaseError as error:
        if getattr(error.orig, "sqlstate", None) not in _PASSING:
            raise
        raise Unavailable(f"the scheduler's database: {error.orig}") from error
