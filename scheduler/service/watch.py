"""Events as they happen."""

import threading
from collections.abc import Callable, Iterator

from scheduler.domain.states import CampaignState
from scheduler.storage import campaigns, events
from scheduler.storage.store import Store
from sealpool.errors import ResourceExhausted, Unavailable
from sealpool.v1 import scheduler_pb2

POLL_S = 2.0
"""How often a watcher looks by itself, for events that another process on the same database wrote."""


class WatchService:
    """Tells watchers what happens in a campaign.

    Parameters
    ----------
    max_watchers
        Watchers at once; each holds a thread.
    """

    def __init__(self, *, store: Store, max_watchers: int) -> None:
        self._store = store
        self._max_watchers = max_watchers
        self._places = threading.Semaphore(max_watchers)
        self._changed = threading.Condition()
        self._changes = 0
        self._stopping = False
        store.on_commit(self.wake)

    def wake(self) -> None:
        """Let all watchers look: something was committed, or one of them was left by its caller."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def stop(self) -> None:
        """End all watches with Unavailable."""
        self._stopping = True
        self.wake()

    def watch(
        self, request: scheduler_pb2.WatchCampaignRequest, *, is_active: Callable[[], bool]
    ) -> Iterator[scheduler_pb2.WatchCampaignResponse]:
        """Yield events until the campaign is archived or `is_active` says that the caller left."""
        if not self._places.acquire(blocking=False):
            raise ResourceExhausted("one more watcher", limit=self._max_watchers, setting="max_watchers")
        try:
            yield from self._follow(request, is_active)
        finally:
            self._places.release()

    def _follow(
        self, request: scheduler_pb2.WatchCampaignRequest, is_active: Callable[[], bool]
    ) -> Iterator[scheduler_pb2.WatchCampaignResponse]:
        after = request.after_sequence
        while is_active():
            if self._stopping:
                raise Unavailable("the scheduler is stopping")
            seen = self._changes
            with self._store.reading() as session:
                campaign = campaigns.get(session, request.campaign)
                page = events.after(session, campaign.id, after)
            for event in page:
                after = event.sequence
                yield event
            if page:
                continue
            if campaign.state == CampaignState.ARCHIVED:
                return
            with self._changed:
                # Whatever was committed after `seen` was read has counted up, so no change is slept through.
                self._changed.wait_for(lambda: self._changes != seen, POLL_S)  # noqa: B023 - called only here
