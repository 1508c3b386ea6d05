"""Names of people and ids of items, replaced by pseudonyms inside of stored messages and texts."""

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.storage.batches import in_batches
from scheduler.storage.models import Campaign, Event, Round, StreamDecision, SyntheticItem
from sealpool.v1 import scheduler_pb2, stream_pb2

_PAGE = 1000


def rename_items_in_messages(session: Session, campaign: Campaign, pseudonyms: Mapping[str, str]) -> Sequence[str]:
    """Rename items where their ids stand inside of stored messages; return what was made of them, by its ids."""
    campaign.spec = _renamed_spec(campaign.spec, pseudonyms)
    for row in session.scalars(select(Round).where(Round.campaign_id == campaign.id, Round.spec.is_not(None))):
        row.spec = _renamed_spec(row.spec or b"", pseudonyms)
    _rename_decisions(session, campaign.id, pseudonyms)
    return _rename_sources(session, campaign.id, pseudonyms)


def rename_in_texts(session: Session, campaign: Campaign, pseudonyms: Mapping[str, str]) -> None:
    """Replace names and ids that errors and notes quote, in rounds and in events that told of them.

    Without the quotes an id as short as "7" would be found in every number.
    """
    quoted = {repr(name): repr(pseudonym) for name, pseudonym in pseudonyms.items()}
    campaign.state_reason = _requoted(campaign.state_reason, quoted)
    for row in session.scalars(select(Round).where(Round.campaign_id == campaign.id)):
        row.error = _requoted(row.error, quoted)
        row.strategy_reason = _requoted(row.strategy_reason, quoted)
        notes = [_requoted(note, quoted) for note in row.notes]
        if notes != row.notes:
            row.notes = notes
    _rename_in_events(session, campaign.id, quoted)


def _requoted(text: str, quoted: Mapping[str, str]) -> str:
    if "'" not in text and '"' not in text:
        return text
    for was, now in quoted.items():
        text = text.replace(was, now)
    return text


def _rename_in_events(session: Session, campaign_id: int, quoted: Mapping[str, str]) -> None:
    query = select(Event).where(Event.campaign_id == campaign_id).order_by(Event.sequence)
    for event in session.scalars(query.execution_options(yield_per=_PAGE)):
        body = scheduler_pb2.WatchCampaignResponse.FromString(event.body)
        if not body.HasField("round_changed"):
            continue
        told = body.round_changed.round
        told.error = _requoted(told.error, quoted)
        told.strategy_reason = _requoted(told.strategy_reason, quoted)
        told.notes[:] = [_requoted(note, quoted) for note in told.notes]
        event.body = body.SerializeToString()


def _renamed_spec(stored: bytes, pseudonyms: Mapping[str, str]) -> bytes:
    spec = scheduler_pb2.CampaignSpec.FromString(stored)
    if not set(spec.seeding.item_ids) & pseudonyms.keys():
        return stored
    spec.seeding.item_ids[:] = [pseudonyms.get(item, item) for item in spec.seeding.item_ids]
    return spec.SerializeToString(deterministic=True)


def _rename_decisions(session: Session, campaign_id: int, pseudonyms: Mapping[str, str]) -> None:
    for some in in_batches(list(pseudonyms.values())):
        ids = StreamDecision.item_id.in_(some)
        for row in session.scalars(select(StreamDecision).where(StreamDecision.campaign_id == campaign_id, ids)):
            decision = stream_pb2.StreamDecision.FromString(row.decision)
            decision.item_id = row.item_id
            row.decision = decision.SerializeToString()


def _rename_sources(session: Session, campaign_id: int, pseudonyms: Mapping[str, str]) -> list[str]:
    erased, derived = set(pseudonyms.values()), []
    for row in session.scalars(select(SyntheticItem).where(SyntheticItem.campaign_id == campaign_id)):
        item = stream_pb2.SyntheticItem.FromString(row.item)
        if row.item_id in erased:
            item.item_id, item.text = row.item_id, ""
        if set(item.sources) & pseudonyms.keys():
            item.sources[:] = [pseudonyms.get(source, source) for source in item.sources]
            if not item.real and row.item_id not in erased:
                derived.append(row.item_id)
        row.item = item.SerializeToString()
    return derived
