"""Alembic's entry: runs on the connection that `scheduler.storage.migrate` hands over."""

from alembic import context
from sqlalchemy import Connection

from scheduler.storage.models import Base


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


_run(context.config.attributes["connection"])
