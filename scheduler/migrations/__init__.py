"""Alembic migrations; `scheduler.storage.migrate` runs them at start."""
