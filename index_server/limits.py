"""How much one call may ask for, and how much there may be."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Each is the setting of the same name, which says what it trades."""

    max_pools: int
    max_upsert_rows: int
    max_ids: int
    max_k: int
    max_queries: int
    max_neighbors: int
    max_sample: int
    max_candidates: int
    max_campaigns: int
