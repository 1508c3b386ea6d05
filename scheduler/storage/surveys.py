"""What earlier rounds' models said of the stop set."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.domain.states import RoundState
from scheduler.storage.models import Round


def before(session: Session, campaign_id: int, number: int, *, limit: int) -> Sequence[Round]:
    """Return the latest `limit` finished rounds before `number` that have a survey, first to last.

    One that failed after its survey is none of them: the next round trains on its labels again, and two models of the
    same labels agree whatever they have learnt.
    """
    query = select(Round).where(
        Round.campaign_id == campaign_id,
        Round.number < number,
        Round.state == RoundState.FINISHED,
        Round.survey.is_not(None),
    )
    return session.scalars(query.order_by(Round.number.desc()).limit(limit)).all()[::-1]
