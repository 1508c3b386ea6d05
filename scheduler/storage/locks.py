"""Locks on names, for what has no row yet."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.orm import Session

_LOCK = text(
    "SELECT pg_advisory_xact_lock(key) FROM"
    " (SELECT hashtextextended(name, 0) AS key FROM unnest(CAST(:names AS text[])) AS name ORDER BY 1 OFFSET 0) AS keys"
)


def until_end(session: Session, names: Sequence[str]) -> None:
    """Make other transactions that lock one of these names wait until this one has ended.

    All names at once: they are taken in one order, so that no two transactions with names in common wait for each
    other. On SQLite a transaction that writes is alone, and this does nothing.
    """
    if names and session.get_bind().dialect.name == "postgresql":
        session.execute(_LOCK, {"names": list(names)})
