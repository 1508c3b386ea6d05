"""What is left of a campaign's budget for requests that no round makes."""

from sqlalchemy.orm import Session

from scheduler.domain.states import RoundState
from scheduler.storage import campaigns, rounds, streams, tasks
from scheduler.storage.models import Campaign

_BEFORE_PICKS = frozenset({RoundState.TRAINING, RoundState.EVALUATING, RoundState.SELECTING})


def left_of_budget(session: Session, campaign: Campaign) -> int:
    """Return how many more items may be handed out, 0 or more.

    Beside what is labelled and outstanding, the batch of a round that has begun and not picked yet is spoken for.
    """
    spec = campaigns.spec_of(campaign)
    spent = campaign.labelled + campaign.evaluation_labelled
    waiting = len(tasks.outstanding(session, campaign.id)) + streams.evaluation_outstanding(session, campaign.id)
    running = rounds.unfinished(session, campaign.id)
    promised = running.batch if running is not None and running.state in _BEFORE_PICKS else 0
    return max(0, spec.budget - spent - waiting - promised)


def round_of_tasks(session: Session, campaign: Campaign) -> int:
    """Return the round under which tasks of no round are written: the latest that has made its picks.

    A round leaves out what rounds before it handed out, so a task under its own number could be picked again by it.
    """
    last = rounds.last(session, campaign.id)
    if last is None:
        return 0
    return max(0, last.number - (last.state in _BEFORE_PICKS))
