"""The database engine of either dialect."""

import sqlite3
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from sealpool.errors import InvalidArgument

BUSY_TIMEOUT_S = 30
WRITES = "sealpool_writes"
"""Execution option of a connection that will write: on SQLite its transaction takes the write lock at once."""


def open_engine(url: str, *, connections: int) -> Engine:
    """Open the database at `url`, sqlite:///file or postgresql+psycopg://….

    SQLite runs in WAL mode with synchronous=FULL: a transaction that committed survives a power cut. A transaction
    that will write begins IMMEDIATE, because one that begins as a reader and then writes fails at once when another
    has written in between, whatever the busy timeout.

    Raises
    ------
    InvalidArgument
        No URL, another kind of database, or SQLite in memory.
    """
    try:
        parsed = make_url(url)
        dialect = parsed.get_backend_name()
        if dialect == "postgresql":
            network = {name: value for name, value in _POSTGRES_ARGUMENTS.items() if name not in parsed.query}
            engine = create_engine(
                parsed, pool_size=connections, max_overflow=0, pool_pre_ping=True, connect_args=network
            )
            event.listen(engine, "connect", _prepare_postgres)
            return engine
    except ArgumentError as error:
        # Without the URL: it may hold a password.
        raise InvalidArgument("database_url", "cannot be read") from error
    if dialect != "sqlite" or parsed.database in (None, "", ":memory:"):
        raise InvalidArgument("database_url", "is neither sqlite:///file nor postgresql+psycopg://…")
    # isolation_level None leaves BEGIN to us: the driver's own is deferred.
    arguments = {"timeout": BUSY_TIMEOUT_S, "isolation_level": None}
    engine = create_engine(parsed, pool_size=connections, max_overflow=0, connect_args=arguments)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_postgres(connection: Any, _record: Any) -> None:
    # The locks of a scheduler whose machine is gone, or frozen, must not hold up the one that takes over.
    for option, value in _POSTGRES_OPTIONS.items():
        connection.execute(f"SET {option} = {value}")
    connection.commit()


_POSTGRES_ARGUMENTS = {
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""So that calls and rounds hear within seconds of a database whose machine is gone: by itself TCP tries for minutes.
What the URL says goes before."""

_POSTGRES_OPTIONS = {
    "tcp_keepalives_idle": 3,
    "tcp_keepalives_interval": 1,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": 6_000,
    "idle_in_transaction_session_timeout": 60_000,
}


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
