"""Which items of a stream are worth a request.

After Žliobaitė, Bifet, Pfahringer and Holmes, Active Learning with Drifting Streaming Data, IEEE TNNLS 25(1), 2014: a
threshold on the model's doubt, fixed or one that moves with each decision, under an estimate of what was spent lately.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Self

from scheduler.domain.stream_spec import DEFAULT_BUDGET_SHARE, DEFAULT_STEP, DEFAULT_UNCERTAINTY, threshold_of
from sealpool.types import ItemId
from sealpool.v1 import scheduler_pb2

LEAST_WINDOW = 100
REQUESTS_A_WINDOW = 10
"""The paper's window is 100 items. Where the share allowed is below a tenth, so few hold too few requests to tell the
share: with one request in 200 allowed, the first lets the estimate fall below the share again after 69 items. So the
window is as long as ten requests take."""
LEAST_THRESHOLD = 1e-3
"""Where a threshold that nothing passes stops falling: from 0 no step would ever bring it back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """What a StreamSpec says, defaults filled in."""

    adapts: bool  # the threshold moves
    horizon: int  # items over which the budget is to last; 0: `budget_share` says what is allowed
    uncertainty: float
    step: float
    budget_share: float
    random_share: float

    @classmethod
    def of(cls, spec: scheduler_pb2.StreamSpec) -> Self:
        """Read a spec that was checked."""
        kind = threshold_of(spec)
        return cls(
            adapts=kind != scheduler_pb2.STREAM_THRESHOLD_FIXED,
            horizon=spec.horizon if kind == scheduler_pb2.STREAM_THRESHOLD_BUDGETED else 0,
            uncertainty=spec.uncertainty or DEFAULT_UNCERTAINTY,
            step=spec.step or DEFAULT_STEP,
            budget_share=spec.budget_share or DEFAULT_BUDGET_SHARE,
            random_share=spec.random_share,
        )

    def allowed(self, *, seen: int, left: int) -> float:
        """Return the share of items that may be asked about now, 0 to 1.

        Parameters
        ----------
        seen
            Items that came before.
        left
            Requests that the campaign's budget still has.
        """
        if left <= 0:
            return 0.0
        if not self.horizon:
            return self.budget_share
        return min(1.0, left / max(1, self.horizon - seen))


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """What the decisions so far come to."""

    threshold: float
    share: float = 0.0  # of the recent past that was asked about: û / w of the paper's equation 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What becomes of one item."""

    asked: bool
    at_random: bool


def decide(
    rule: Rule, standing: Standing, *, uncertainty: float, draw: float, seen: int, left: int
) -> tuple[Decision, Standing]:
    """Decide of one item, and return where that leaves the stream.

    A share of the requests is drawn whatever the doubt (the paper's Split strategy). Else an item is asked about where
    its doubt is above the threshold and the request keeps the share of the recent past within what is allowed; the
    paper looks at the share before the request, which would pass it by half a request a window. A threshold that adapts
    rises by `step` with a request and falls by it without one; while nothing may be spent it stays, as in the paper.

    Parameters
    ----------
    uncertainty
        1 − the largest probability.
    draw
        The item's own number in [0, 1): see `draw_of`.
    seen, left
        As for `Rule.allowed`.
    """
    allowed = rule.allowed(seen=seen, left=left)
    window = max(LEAST_WINDOW, REQUESTS_A_WINDOW / allowed) if allowed else LEAST_WINDOW
    faded = standing.share * (1 - 1 / window)
    asked = at_random = draw < rule.random_share * allowed
    threshold = standing.threshold
    if not at_random and allowed and faded + 1 / window <= allowed + 1e-12:
        asked = uncertainty > threshold
        if rule.adapts:
            threshold *= 1 + rule.step if asked else 1 - rule.step
            threshold = min(max(threshold, LEAST_THRESHOLD), 1.0)
    share = faded + asked / window
    return Decision(asked=asked, at_random=at_random), replace(standing, threshold=threshold, share=share)


def draw_of(seed: int, item: ItemId) -> float:
    """Return an item's number in [0, 1): a hash, so that a repeated item is drawn as before, on every machine."""
    digest = hashlib.sha256(f"sealpool:{seed}:stream:{item}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
