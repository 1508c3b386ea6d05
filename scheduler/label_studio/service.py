"""What callers ask of campaigns in Label Studio."""

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping

from sqlalchemy.orm import Session

from scheduler.domain.states import CampaignState
from scheduler.label_studio.client import LabelStudioClient
from scheduler.label_studio.labelling_config import INPUTS, TEXT
from scheduler.label_studio.linking import find_or_make_project, set_webhook
from scheduler.label_studio.pushing import HOLDER
from scheduler.label_studio.servers import DEFAULT_SERVER, SETTING, LabelStudioServer
from scheduler.label_studio.syncing import Syncer
from scheduler.service.checks import check_text
from scheduler.service.once import Once
from scheduler.storage import campaigns
from scheduler.storage import label_studio as storage
from scheduler.storage.models import Campaign, LabelStudioLink
from scheduler.storage.store import Store
from sealpool.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, SealpoolError
from sealpool.failpoint import reach
from sealpool.runtime.logs import Logger
from sealpool.v1 import label_studio_pb2 as pb
from sealpool.vocabulary.checking import check_choice

MAX_URL_BYTES = 2048


class LabelStudioService:
    """Links campaigns, and syncs them when somebody asks.

    Parameters
    ----------
    new_secret
        Makes the secret by which Label Studio shows that it calls: up to 64 characters of a header.
    """

    def __init__(
        self,
        *,
        store: Store,
        servers: Mapping[str, LabelStudioServer],
        client_of: Callable[[str], LabelStudioClient],
        syncer: Syncer,
        new_secret: Callable[[], str],
        log: Logger,
    ) -> None:
        self._store = store
        self._servers = servers
        self._client_of = client_of
        self._syncer = syncer
        self._new_secret = new_secret
        self._log = log
        self._once = Once(store)
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def link(self, request: pb.LinkLabelStudioRequest) -> pb.LinkLabelStudioResponse:
        """Make a campaign's project, or find the one that was made, and remember it."""
        earlier = self._once.answered(request, pb.LinkLabelStudioResponse)
        if earlier is not None:
            return earlier
        wanted = self._wanted(request)
        with self._turns[request.campaign]:
            with self._store.reading() as session:
                campaign = campaigns.get(session, request.campaign)
                row = storage.link_of(session, campaign.id)
            if row is None:
                row, found = self._make(campaign, wanted, request.webhook_url)
            else:
                _require_same(row, wanted, request)
                found = True

            def effect(session: Session) -> pb.LinkLabelStudioResponse:
                locked = campaigns.lock(session, request.campaign)
                there = storage.link_of(session, locked.id)
                if there is None:
                    _require_not_archived(locked)
                    if not found:
                        storage.begin_anew(session, locked.id)
                    session.add(row)
                    session.flush()
                else:
                    _require_same(there, wanted, request)
                return pb.LinkLabelStudioResponse(link=_message(session, there or row))

            return self._once.run(request, pb.LinkLabelStudioResponse, effect)

    def unlink(self, request: pb.UnlinkLabelStudioRequest) -> pb.UnlinkLabelStudioResponse:
        """Forget a campaign's project; Label Studio is told not to call any more, if it answers."""
        earlier = self._once.answered(request, pb.UnlinkLabelStudioResponse)
        if earlier is not None:
            return earlier
        row = self._row(request.campaign)
        self._silence(request.campaign, row)

        def effect(session: Session) -> pb.UnlinkLabelStudioResponse:
            campaign = campaigns.lock(session, request.campaign)
            _linked(storage.link_of(session, campaign.id), request.campaign)
            storage.forget(session, campaign.id, holder=HOLDER)
            return pb.UnlinkLabelStudioResponse()

        with self._syncer.turn(request.campaign):
            return self._once.run(request, pb.UnlinkLabelStudioResponse, effect)

    def sync(self, request: pb.SyncLabelStudioRequest) -> pb.SyncLabelStudioResponse:
        """Push and fetch now."""
        done = self._syncer.sync(request.campaign)
        try:
            link = self.get(request.campaign)
        except NotFound:  # archived: this was its last time
            link = pb.LabelStudioLink(campaign=request.campaign)
        return pb.SyncLabelStudioResponse(pushed=done.pushed, received=done.received, closed=done.closed, link=link)

    def get(self, name: str) -> pb.LabelStudioLink:
        """Show a campaign's link."""
        with self._store.reading() as session:
            return _message(session, _linked(storage.link_of(session, campaigns.get(session, name).id), name))

    def _wanted(self, request: pb.LinkLabelStudioRequest) -> pb.LabelStudioLink:
        check_choice("input", request.input, {"", *INPUTS})
        url = check_text("webhook_url", request.webhook_url, max_bytes=MAX_URL_BYTES)
        if url and not url.startswith(("http://", "https://")):
            raise InvalidArgument("webhook_url", "is not like https://host:7323")
        server = request.server or DEFAULT_SERVER
        if server not in self._servers:
            raise NotFound(f"Label Studio server (setting {SETTING})", server, field="server")
        return pb.LabelStudioLink(
            campaign=request.campaign, server=server, input=request.input or TEXT, webhook=bool(request.webhook_url)
        )

    def _make(self, campaign: Campaign, wanted: pb.LabelStudioLink, webhook_url: str) -> tuple[LabelStudioLink, bool]:
        _require_not_archived(campaign)
        client, secret = self._client_of(wanted.server), self._new_secret()
        project_id, found = find_or_make_project(client, campaign, shown=wanted.input)
        reach("scheduler.label_studio.project_made")
        webhook_id = set_webhook(client, project_id, campaign.name, webhook_url, secret)
        wanted.project_id = project_id
        wanted.project_url = f"{self._servers[wanted.server].url}/projects/{project_id}"
        self._log.info("linked to Label Studio", campaign=campaign.name, project=project_id, made=not found)
        row = LabelStudioLink(
            campaign_id=campaign.id,
            link=wanted.SerializeToString(deterministic=True),
            webhook_url=webhook_url,
            webhook_secret=secret,
            webhook_id=webhook_id,
            polled_until="",
        )
        return row, found

    def _silence(self, name: str, row: LabelStudioLink) -> None:
        if row.webhook_id is None:
            return
        try:
            self._client_of(pb.LabelStudioLink.FromString(row.link).server).remove_webhook(row.webhook_id)
        except SealpoolError as error:
            # It may go on calling: without a link it is refused, and nothing comes of it.
            self._log.warning("webhook stays in Label Studio", campaign=name, error=error.message)

    def _row(self, name: str) -> LabelStudioLink:
        with self._store.reading() as session:
            return _linked(storage.link_of(session, campaigns.get(session, name).id), name)


def _require_same(row: LabelStudioLink, wanted: pb.LabelStudioLink, request: pb.LinkLabelStudioRequest) -> None:
    link = pb.LabelStudioLink.FromString(row.link)
    if (link.server, link.input, row.webhook_url) != (wanted.server, wanted.input, request.webhook_url):
        raise AlreadyExists("Label Studio link of campaign", request.campaign)


def _require_not_archived(campaign: Campaign) -> None:
    if campaign.state == CampaignState.ARCHIVED:
        raise FailedPrecondition(f"campaign {campaign.name!r} is archived", field="campaign")


def _linked(row: LabelStudioLink | None, name: str) -> LabelStudioLink:
    if row is None:
        raise NotFound("Label Studio link", name, field="campaign")
    return row


def _message(session: Session, row: LabelStudioLink) -> pb.LabelStudioLink:
    link = pb.LabelStudioLink.FromString(row.link)
    link.pushed, link.received = storage.counts(session, row.campaign_id)
    return link
