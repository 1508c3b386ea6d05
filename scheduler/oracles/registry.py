"""Oracles by the name they have on the wire."""

from collections.abc import Mapping

from scheduler.oracles.dataset import DatasetOracle
from scheduler.oracles.port import Oracle
from scheduler.ports import Index

OracleRegistry = Mapping[str, Oracle | None]
"""None stands for whoever leases tasks: the scheduler has nothing to run there."""


def make_oracles(index: Index, *, language_model: Oracle) -> OracleRegistry:
    """Return every oracle that a campaign can name."""
    return {"external": None, "dataset": DatasetOracle(index), "llm": language_model}
