"""What is made of campaigns' specs once and used by many calls."""

import threading
from dataclasses import dataclass

from scheduler.domain.labels import ClassIndex
from scheduler.storage import campaigns
from scheduler.storage.models import Campaign
from scheduler.storage.store import Store
from sealpool.v1 import scheduler_pb2

MOST = 256
"""A spec of 10,000 classes takes about a megabyte here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownSpec:
    """A campaign's spec, not to be changed, and its classes: no campaign changes those, or its pool."""

    raw: bytes
    spec: scheduler_pb2.CampaignSpec
    classes: ClassIndex


class KnownSpecs:
    """The specs of the campaigns that were asked for lately."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: dict[str, KnownSpec] = {}

    def classes_of(self, name: str) -> ClassIndex:
        """Return the classes of a campaign by name; NotFound if there is none."""
        return self._named(name).classes

    def pool_of(self, name: str) -> str:
        """Return the pool of a campaign by name; NotFound if there is none."""
        return self._named(name).spec.pool

    def of(self, campaign: Campaign) -> KnownSpec:
        """Return what is known of a campaign as it stands in a transaction."""
        known = self._known.get(campaign.name)
        if known is not None and known.raw == campaign.spec:
            return known
        spec = campaigns.spec_of(campaign)
        known = KnownSpec(raw=campaign.spec, spec=spec, classes=ClassIndex(spec))
        with self._lock:
            self._known.pop(campaign.name, None)
            self._known[campaign.name] = known
            if len(self._known) > MOST:
                del self._known[next(iter(self._known))]
        return known

    def _named(self, name: str) -> KnownSpec:
        known = self._known.get(name)
        if known is not None:
            return known
        with self._store.reading() as session:
            campaign = campaigns.get(session, name)
        return self.of(campaign)
