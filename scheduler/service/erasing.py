"""People taken out of what a campaign keeps."""

from collections.abc import Iterable, Sequence

from sqlalchemy.orm import Session

from scheduler.asking import asking
from scheduler.domain.pseudonyms import make_pseudonym
from scheduler.ports import Index
from scheduler.service.checks import check_annotator, check_text
from scheduler.storage import campaigns, erasing, erasing_messages, rounds
from scheduler.storage.models import Campaign
from scheduler.storage.store import Store
from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound
from sealpool.types import ItemId
from sealpool.v1 import scheduler_pb2
from sealpool.validation import MAX_ID_BYTES


class ErasureService:
    """Replaces names of annotators and ids of items by pseudonyms.

    Parameters
    ----------
    max_names
        Names and ids in one call at most: the setting max_labels.
    """

    def __init__(self, *, store: Store, index: Index, max_names: int) -> None:
        self._store = store
        self._index = index
        self._max_names = max_names

    def erase(self, request: scheduler_pb2.EraseRequest) -> scheduler_pb2.EraseResponse:
        """Erase all that is named, or nothing."""
        self._check(request)
        with self._store.reading() as session:
            spec = campaigns.spec_of(campaigns.get(session, request.campaign))
        self._check_deleted([ItemId(item) for item in request.item_ids], {spec.pool, spec.evaluation_pool} - {""})
        with self._store.writing() as session:
            campaign = campaigns.lock(session, request.campaign)
            if rounds.unfinished(session, campaign.id) is not None:
                raise FailedPrecondition(
                    f"a round of {campaign.name!r} is under way: pause the campaign, and wait for its end",
                    field="campaign",
                )
            answer = _erase(session, campaign, request)
        self._store.shed_log()
        return answer

    def _check(self, request: scheduler_pb2.EraseRequest) -> None:
        count = len(request.annotators) + len(request.item_ids)
        if not 1 <= count <= self._max_names:
            raise InvalidArgument(
                "item_ids", f"{count:,} names and ids are not 1 to {self._max_names:,} (setting max_labels)"
            )
        for annotator in request.annotators:
            check_annotator(annotator)
        for item in request.item_ids:
            check_text("item_ids", item, min_bytes=1, max_bytes=MAX_ID_BYTES)
        for field in ("annotators", "item_ids"):
            given: Sequence[str] = getattr(request, field)
            if len(set(given)) < len(given):
                raise InvalidArgument(field, "one is named twice")

    def _check_deleted(self, items: Sequence[ItemId], pools: set[str]) -> None:
        if not items:
            return
        for pool in sorted(pools):
            try:
                with asking("the index server"):
                    held = self._index.get_items(pool, items, vectors=False, allow_missing=True).ids
            except NotFound:  # deleted with all its items
                continue
            if held:
                raise FailedPrecondition(
                    f"pool {pool!r} still has {len(held):,} of the items, as {held[0]!r}: delete them there first",
                    field="item_ids",
                )


def _erase(session: Session, campaign: Campaign, request: scheduler_pb2.EraseRequest) -> scheduler_pb2.EraseResponse:
    erasing.overwrite_what_changes(session)
    annotators = _pseudonyms(erasing.known_annotators(session, campaign.id, request.annotators))
    items = _pseudonyms(request.item_ids)
    known = erasing.known_items(session, campaign.id, items)
    if annotators or known:
        with erasing.append_only_lifted(session):
            erasing.rename_annotators(session, campaign.id, annotators)
            erasing.rename_items(session, campaign.id, {item: items[item] for item in items if item in known})
    # An id may stand in a message alone: among the examples of a seeding, say.
    derived = erasing_messages.rename_items_in_messages(session, campaign, items) if items else ()
    erasing_messages.rename_in_texts(session, campaign, {**annotators, **items})
    return scheduler_pb2.EraseResponse(annotators=len(annotators), items=len(known), derived_item_ids=derived)


def _pseudonyms(names: Iterable[str]) -> dict[str, str]:
    return {name: make_pseudonym() for name in names}
