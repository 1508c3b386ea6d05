"""Keeping one campaign and its project in step."""

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from scheduler import messages
from scheduler.domain.states import CampaignState
from scheduler.label_studio.api import moment
from scheduler.label_studio.client import LabelStudioClient
from scheduler.label_studio.pushing import HOLDER, Pusher
from scheduler.label_studio.receiving import Receiver
from scheduler.storage import campaigns
from scheduler.storage import label_studio as storage
from scheduler.storage.models import Campaign, LabelStudioLink
from scheduler.storage.store import Store
from sealpool.errors import NotFound, SealpoolError
from sealpool.v1 import label_studio_pb2

OVERLAP_S = 10.0
"""A change is visible in Label Studio a little after the time that it bears: each poll looks back so far."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Synced:
    """What one go did."""

    pushed: int = 0
    received: int = 0
    closed: int = 0
    problem: str = ""


class Syncer:
    """Keeps campaigns and their projects in step. One go at a time for each campaign."""

    def __init__(
        self, *, store: Store, receiver: Receiver, pusher: Pusher, client_of: Callable[[str], LabelStudioClient]
    ) -> None:
        self._store = store
        self._receiver = receiver
        self._pusher = pusher
        self._client_of = client_of
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def sync(self, name: str) -> Synced:
        """Fetch, take out and push; what went wrong is kept in the link and raised.

        Raises
        ------
        NotFound
            The campaign has no link.
        """
        self._read(name)  # before there is a turn: names come from callers
        with self.turn(name):
            campaign, link = self._read(name)
            try:
                done = self._sync(campaign, link)
            except SealpoolError as error:
                self._note(name, error.message)
                raise
            self._note(name, done.problem)
            return done

    def turn(self, name: str) -> threading.Lock:
        """Return the lock that a go of this campaign holds."""
        return self._turns[name]

    def _sync(self, campaign: Campaign, link: LabelStudioLink) -> Synced:
        name, about = campaign.name, label_studio_pb2.LabelStudioLink.FromString(link.link)
        client = self._client_of(about.server)
        if campaign.state == CampaignState.ARCHIVED:
            return self._part(name, client, link, about.project_id)
        done = self._receive(name, client, about.project_id, link.polled_until)
        self._pusher.reconcile(name, client, about.project_id)
        wanted = self._pusher.hold(name)
        done = replace(done, closed=self._pusher.close(name, client, about.project_id, wanted))
        return replace(done, pushed=self._pusher.push(name, client, about, wanted))

    def _receive(self, name: str, client: LabelStudioClient, project_id: int, mark: str) -> Synced:
        received, problem = 0, ""
        for page in client.annotated_after(project_id, _before(mark)):
            taken = self._receiver.take(name, client, page)
            received += taken.received
            problem = problem or taken.refused
            with self._store.writing() as session:
                campaign = campaigns.lock(session, name)
                storage.note_labelled(session, campaign.id, taken.labelled)
                link = storage.link_of(session, campaign.id)
                # What was refused is asked for again the next time: the mark stays before it.
                if link is not None and not problem:
                    link.polled_until = max(link.polled_until, page[-1].updated_at)
        return Synced(received=received, problem=problem)

    def _part(self, name: str, client: LabelStudioClient, link: LabelStudioLink, project_id: int) -> Synced:
        """End the link of an archived campaign; its open tasks leave Label Studio."""
        closed = self._pusher.close(name, client, project_id, {})
        if link.webhook_id is not None:
            client.remove_webhook(link.webhook_id)
        with self._store.writing() as session:
            storage.forget(session, campaigns.lock(session, name).id, holder=HOLDER)
        return Synced(closed=closed)

    def _read(self, name: str) -> tuple[Campaign, LabelStudioLink]:
        with self._store.reading() as session:
            campaign = campaigns.get(session, name)
            link = storage.link_of(session, campaign.id)
        if link is None:
            raise NotFound("Label Studio link", name, field="campaign")
        return campaign, link

    def _note(self, name: str, problem: str) -> None:
        with self._store.writing() as session:
            campaign = campaigns.lock(session, name)
            link = storage.link_of(session, campaign.id)
            if link is None:
                return
            about = label_studio_pb2.LabelStudioLink.FromString(link.link)
            about.error = problem
            if not problem:
                about.synced_at.CopyFrom(messages.timestamp(self._store.clock.now()))
            link.link = about.SerializeToString(deterministic=True)


def _before(mark: str) -> str:
    if not mark:
        return ""
    return moment(datetime.fromisoformat(mark) - timedelta(seconds=OVERLAP_S))
