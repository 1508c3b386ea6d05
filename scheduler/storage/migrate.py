"""Bring the database to the tables of this version."""

from importlib.resources import files

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from scheduler.storage.store import Store

_LOCK_KEY = 0x5EA1_9001
"""Of the advisory lock under which one process of several migrates a PostgreSQL database."""


def migrate(store: Store) -> None:
    """Run the migrations that the database lacks, all of them in one transaction or none.

    Safe in several processes at once: on PostgreSQL an advisory lock, on SQLite the write lock makes them take turns.
    """
    with store.writing_engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        command.upgrade(alembic_config(connection), "head")


def alembic_config(connection: Connection) -> Config:
    """Return Alembic's configuration over an open connection."""
    config = Config()
    config.set_main_option("script_location", str(files("scheduler") / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
