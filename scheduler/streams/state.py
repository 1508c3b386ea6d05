"""Where a stream stands, and how that is kept."""

from dataclasses import dataclass, field
from typing import Self, cast

from scheduler.storage.models import Stream
from scheduler.streams.drift import DriftWatch
from scheduler.streams.thresholds import Decision, Rule, Standing, decide
from sealpool.v1 import stream_pb2

MEAN_OVER = 1_000


@dataclass(kw_only=True, slots=True)
class StreamState:
    """A stream between two items."""

    standing: Standing
    seen: int = 0
    asked: int = 0
    mean_uncertainty: float = 0.0
    drift: DriftWatch = field(default_factory=DriftWatch)

    @classmethod
    def of(cls, row: Stream | None, rule: Rule) -> Self:
        """Read a stream; None is one that has not begun."""
        return cls(standing=Standing(threshold=rule.uncertainty)) if row is None else cls.stored_in(row)

    @classmethod
    def stored_in(cls, row: Stream) -> Self:
        """Read a stream that has begun."""
        state = row.state
        drift = DriftWatch(
            recent=DriftWatch.unpacked(str(state["recent"])),
            drifts=cast(int, state["drifts"]),
            last_drift_at=cast(int, state["last_drift_at"]),
        )
        return cls(
            standing=Standing(threshold=cast(float, state["threshold"]), share=cast(float, state["share"])),
            seen=row.seen,
            asked=row.asked,
            mean_uncertainty=cast(float, state["mean_uncertainty"]),
            drift=drift,
        )

    def take(self, rule: Rule, *, uncertainty: float, draw: float, left: int) -> Decision:
        """Decide of the next item, and move on. `left` requests are in the budget."""
        decision, self.standing = decide(
            rule, self.standing, uncertainty=uncertainty, draw=draw, seen=self.seen, left=left
        )
        self.seen += 1
        self.asked += decision.asked
        self.mean_uncertainty += (uncertainty - self.mean_uncertainty) / min(self.seen, MEAN_OVER)
        self.drift.add(uncertainty, seen=self.seen)
        return decision

    def stored(self) -> dict[str, object]:
        """Return what the database keeps beside `seen` and `asked`."""
        return {
            "threshold": self.standing.threshold,
            "share": self.standing.share,
            "mean_uncertainty": self.mean_uncertainty,
            "recent": self.drift.packed(),
            "drifts": self.drift.drifts,
            "last_drift_at": self.drift.last_drift_at,
        }

    def message(self) -> stream_pb2.GetStreamResponse:
        """Tell how the stream stands."""
        return stream_pb2.GetStreamResponse(
            seen=self.seen,
            asked=self.asked,
            threshold=self.standing.threshold,
            asked_share=self.standing.share,
            mean_uncertainty=self.mean_uncertainty,
            drifts=self.drift.drifts,
            last_drift_at=self.drift.last_drift_at,
        )
