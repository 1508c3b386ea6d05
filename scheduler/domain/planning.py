"""What the next round of a campaign is."""

from collections.abc import Callable
from dataclasses import dataclass

from scheduler.domain.states import RoundKind
from scheduler.domain.strategy_spec import needs_model
from sealpool.errors import FailedPrecondition
from sealpool.v1 import scheduler_pb2


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a campaign looks like at the moment a round would begin."""

    spec: scheduler_pb2.CampaignSpec
    batch: int  # items a round, where the budget has so many
    labelled: int  # distinct items, held-out ones not counted
    outstanding: int  # items handed out for training, or waiting to be, and not labelled
    arrived: int  # distinct items labelled since the last round that counts
    seeded: bool  # the seed set was handed out
    # Why the labels cannot train a model; "" if they can. A function, since it reads all of them (1 s for 100,000),
    # which a timer that finds nothing new should not do.
    why_untrainable: Callable[[], str]
    oracle_is_automatic: bool  # the scheduler's own oracle labels: nobody else will
    evaluation_labelled: int = 0  # items held out from the pool itself
    reserved: int = 0  # items whose labels evaluation still needs
    for_oracle: int = 0  # of the outstanding items: those that wait for the scheduler's own oracle
    idle: bool = False  # see `is_idle`

    @property
    def spent(self) -> int:
        """Labels that the budget has paid for."""
        return self.labelled + self.evaluation_labelled

    @property
    def is_spent(self) -> bool:
        """Whether no further label can come."""
        return self.spent >= self.spec.budget

    @property
    def unpromised(self) -> int:
        """Labels that the budget leaves once all outstanding tasks are labelled, and all that evaluation needs."""
        return max(0, self.spec.budget - self.spent - self.outstanding - self.reserved)

    @property
    def why_cut(self) -> str:
        """Why a batch comes out smaller than the budget alone would make it; "" where it does not."""
        if self.unpromised >= min(self.batch, self.spec.budget - self.spent):
            return ""
        room = f"all but {self.unpromised:,} of" if self.unpromised else "up"
        kept = f", and {self.reserved:,} labels are kept for evaluation" if self.reserved else ""
        return (
            f"{self.outstanding:,} tasks are handed out and not labelled{kept}: with the {self.spent:,} labels they "
            f"take {room} the budget of {self.spec.budget:,}; label them"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Which kind of round it is, and how many items it may hand out."""

    kind: RoundKind
    batch: int


def plan_round(facts: Facts) -> Plan:
    """Decide what the next round does.

    The batch never promises more labels than the budget leaves once all outstanding tasks are labelled, and all that
    evaluation needs. While the labels cannot train a model, a campaign goes on without one if its strategy needs none,
    or if its oracle is automatic, since no other label would ever come; any other that people label waits for their
    next label. An automatic oracle that has spent the budget on such labels leads to a last round that does nothing.

    A round without new labels begins where none will come by itself: the budget is spent, or the campaign `is_idle`.

    Raises
    ------
    FailedPrecondition
        No label has arrived, or those there are cannot train a model.
    """
    spec = facts.spec
    left = facts.unpromised
    if spec.seed_size and not facts.seeded and left:
        return Plan(kind=RoundKind.SEED, batch=min(spec.seed_size, left))
    oracle_has_work = facts.oracle_is_automatic and facts.for_oracle > 0
    if not (facts.arrived or oracle_has_work or facts.is_spent or (facts.idle and left)):
        reason = f"; {facts.why_cut}" if facts.why_cut else ""
        raise FailedPrecondition(f"no label has arrived since the last round{reason}")
    untrainable = facts.why_untrainable()
    if untrainable:
        automatic = facts.oracle_is_automatic
        has_work = left or (automatic and (facts.for_oracle or facts.is_spent))
        if has_work and (automatic or not needs_model(spec)):
            return Plan(kind=RoundKind.WITHOUT_MODEL, batch=min(facts.batch, left))
        raise FailedPrecondition(f"the labels so far cannot train a model: {untrainable}")
    if facts.is_spent:
        return Plan(kind=RoundKind.FINAL, batch=0)
    return Plan(kind=RoundKind.MODEL, batch=min(facts.batch, left))


@dataclass(frozen=True, kw_only=True, slots=True)
class LastRound:
    """How a campaign's last finished round ended."""

    kind: RoundKind
    picks: int
    has_selected: bool  # it looked for items to hand out, and did not end, or go without a batch, before that


def is_idle(
    spec: scheduler_pb2.CampaignSpec, last: LastRound | None, *, arrived: Callable[[], int], has_open: bool
) -> bool:
    """Whether no label comes by itself, and a round would do something that the last one did not.

    So it is where the budget was raised after the campaign's last round, and where what was handed out is all labelled,
    withdrawn or given up: no further label would ever let the next round begin.

    Parameters
    ----------
    arrived
        Says how many distinct items were labelled since the last finished round began.
    has_open
        Whether anything that was handed out for training still waits for its label.
    """
    if last is None:
        return False
    if last.kind == RoundKind.FINAL:
        return True
    if has_open:
        return False
    if not last.has_selected or last.picks or last.kind == RoundKind.SEED or arrived():
        return True
    # It found nothing, with all that is known. The next one ends the campaign, unless the pool may have more.
    fills = spec.fill != scheduler_pb2.FILL_NONE
    return last.kind == RoundKind.MODEL and fills and not spec.HasField("stream")


def rule_fires(spec: scheduler_pb2.CampaignSpec, *, arrived: int, spent: int, idle: bool, whole_batch: int) -> bool:
    """Whether the after_labels rule asks for a round: enough arrived, the budget is spent, or no more will come.

    Without the second, a last batch that the budget cut short would never be trained on; without the third, neither
    would one that the pool cut short, or that was given up in part.

    Parameters
    ----------
    whole_batch
        Items in the last batch if nothing cut it. A rule that waits for more than that counts on labels from elsewhere.
    """
    rule = spec.rule.after_labels
    if not rule:
        return False
    return arrived >= rule or spent >= spec.budget or (idle and arrived < whole_batch)
