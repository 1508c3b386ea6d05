"""What earlier rounds' models said of the stop set."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.storage.models import Round


def before(session: Session, campaign_id: int, number: int, *, limit: int) -> Sequence[Round]:
    """Return the latest `limit` rounds before `number` that have a survey, first to last."""
    query = select(Round).where(Round.campaign_id == campaign_id, Round.number < number, Round.survey.is_not(None))
    return session.scalars(query.order_by(Round.number.desc()).limit(limit)).all()[::-1]
