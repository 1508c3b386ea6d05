"""Time, passed in.

The machine's clock may step. What that does is bounded: nothing is lost, done twice, or left undone for ever.

- Leases end by the clock. Set ahead, tasks are open early and may be leased twice: each answer counts, the later one as
  a correction. Set back, leases last the longer by the step; their answers are taken all the same.
- Interval and cron rules: see `scheduler.jobs.RuleTimers`.
- Rules that count labels, the order of labels, rounds and events go by sequence numbers.
- Leadership, retries and housekeeping go by the monotonic clock.
- Request ids are forgotten after `request_ids_kept_s`: at once by a step ahead that is longer.
- A round's seconds are never negative; a step while it runs shows in its total alone.
"""

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Says what time it is. Any thread may ask."""

    def now(self) -> datetime:
        """Return the time, aware, in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the time, aware, in UTC."""
        return datetime.now(UTC)
