"""Bring the database to the tables of this version."""

from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from scheduler.storage.store import Store, database_errors
from sealpool.errors import FailedPrecondition

_LOCK_KEY = 0x5EA1_9001
"""Of the advisory lock under which one process of several migrates a PostgreSQL database."""


def migrate(store: Store) -> None:
    """Run the migrations that the database lacks, all of them in one transaction or none.

    Safe in several processes at once: on PostgreSQL an advisory lock, on SQLite the write lock makes them take turns.

    Raises
    ------
    FailedPrecondition
        A newer version has migrated the database.
    Unavailable
        The database is away.
    """
    with database_errors(), store.writing_engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        config = alembic_config(connection)
        scripts = ScriptDirectory.from_config(config)
        _check_not_newer(connection, scripts)
        if set(MigrationContext.configure(connection).get_current_heads()) != set(scripts.get_heads()):
            command.upgrade(config, "head")


def alembic_config(connection: Connection) -> Config:
    """Return Alembic's configuration over an open connection."""
    config = Config()
    config.set_main_option("script_location", str(files("scheduler") / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _check_not_newer(connection: Connection, scripts: ScriptDirectory) -> None:
    known = {script.revision for script in scripts.walk_revisions()}
    unknown = set(MigrationContext.configure(connection).get_current_heads()) - known
    if unknown:
        raise FailedPrecondition(
            f"database_url: the database is at revision {', '.join(sorted(unknown))}, which this version does not know "
            f"(its own is {scripts.get_current_head()}): run the newer scheduler again, or restore a backup",
            field="database_url",
        )
