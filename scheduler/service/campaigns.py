"""The life of campaigns."""

from collections.abc import Callable
from typing import Protocol

from sqlalchemy.orm import Session

from scheduler import messages
from scheduler.asking import asking
from scheduler.cron import check_cron
from scheduler.domain.spec import check_spec, normalised, oracle_of
from scheduler.domain.states import CampaignState
from scheduler.oracles.registry import OracleRegistry
from scheduler.ports import Index
from scheduler.service.once import Once
from scheduler.storage import campaigns, events, tasks
from scheduler.storage.store import Store
from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound
from sealpool.v1 import index_pb2, scheduler_pb2


class Timers(Protocol):
    """Interval and cron rules. A timer of a campaign that is not active does no harm: its firings do nothing."""

    def set_for(self, name: str) -> None:
        """Set or remove the campaign's timers as its rule and state now ask."""
        ...


class CampaignService:
    """Creates, shows, pauses, resumes and archives campaigns.

    Parameters
    ----------
    index, oracles
        Asked while a caller waits, so with a short deadline.
    settle
        Called with the name of a campaign that was archived: see `Housekeeper.settle`.
    """

    def __init__(
        self,
        *,
        store: Store,
        index: Index,
        oracles: OracleRegistry,
        timers: Timers,
        settle: Callable[[str], None],
    ) -> None:
        self._store = store
        self._index = index
        self._oracles = oracles
        self._timers = timers
        self._settle = settle
        self._once = Once(store)

    def create(self, request: scheduler_pb2.CreateCampaignRequest) -> scheduler_pb2.CreateCampaignResponse:
        """Begin a campaign."""
        answer = self._once.answered(request, scheduler_pb2.CreateCampaignResponse) or self._create(request)
        self._timers.set_for(request.spec.name)
        return answer

    def get(self, name: str) -> scheduler_pb2.Campaign:
        """Show one campaign."""
        with self._store.reading() as session:
            return messages.campaign_message(session, campaigns.get(session, name), now=self._store.clock.now())

    def list(self, *, include_archived: bool) -> list[scheduler_pb2.Campaign]:
        """Show all campaigns, by name."""
        with self._store.reading() as session:
            now = self._store.clock.now()
            rows = campaigns.all_by_name(session, include_archived=include_archived)
            return messages.campaign_messages(session, rows, now=now)

    def pause(self, request: scheduler_pb2.PauseCampaignRequest) -> scheduler_pb2.PauseCampaignResponse:
        """Stop rules and tasks. A round that runs goes on to its end."""

        def effect(session: Session) -> scheduler_pb2.PauseCampaignResponse:
            return scheduler_pb2.PauseCampaignResponse(
                campaign=self._switch(session, request.name, CampaignState.PAUSED)
            )

        answer = self._once.run(request, scheduler_pb2.PauseCampaignResponse, effect)
        self._timers.set_for(request.name)
        return answer

    def resume(self, request: scheduler_pb2.ResumeCampaignRequest) -> scheduler_pb2.ResumeCampaignResponse:
        """Go on after a pause."""

        def effect(session: Session) -> scheduler_pb2.ResumeCampaignResponse:
            return scheduler_pb2.ResumeCampaignResponse(
                campaign=self._switch(session, request.name, CampaignState.ACTIVE)
            )

        answer = self._once.run(request, scheduler_pb2.ResumeCampaignResponse, effect)
        self._timers.set_for(request.name)
        return answer

    def archive(self, request: scheduler_pb2.ArchiveCampaignRequest) -> scheduler_pb2.ArchiveCampaignResponse:
        """End a campaign. Its candidate pool is dropped at once, or as soon as the index server is there."""

        def effect(session: Session) -> scheduler_pb2.ArchiveCampaignResponse:
            campaign = campaigns.lock(session, request.name)
            now = self._store.clock.now()
            if campaign.state != CampaignState.ARCHIVED:
                campaign.state = CampaignState.ARCHIVED
                campaign.drop_pending = True
                tasks.withdraw(session, campaign.id)
                events.add(session, campaign, messages.state_changed(campaign, now=now))
                session.flush()
            return scheduler_pb2.ArchiveCampaignResponse(campaign=messages.campaign_message(session, campaign, now=now))

        answer = self._once.run(request, scheduler_pb2.ArchiveCampaignResponse, effect)
        self._timers.set_for(request.name)
        self._settle(request.name)
        return answer

    def _create(self, request: scheduler_pb2.CreateCampaignRequest) -> scheduler_pb2.CreateCampaignResponse:
        check_spec(request.spec, oracles=self._oracles.keys())
        spec = normalised(request.spec)
        check_cron("spec.rule.cron", spec.rule.cron)
        pool = self._check_pools(spec)
        oracle = self._oracles[oracle_of(spec)]
        if oracle is not None:
            with asking("the index server"):
                oracle.check(spec)

        def effect(session: Session) -> scheduler_pb2.CreateCampaignResponse:
            now = self._store.clock.now()
            campaign = campaigns.add(session, spec, now=now)
            events.add(session, campaign, messages.state_changed(campaign, now=now))
            return scheduler_pb2.CreateCampaignResponse(
                campaign=messages.campaign_message(session, campaign, now=now), pool_version=pool.version
            )

        return self._once.run(request, scheduler_pb2.CreateCampaignResponse, effect)

    def _switch(self, session: Session, name: str, state: CampaignState) -> scheduler_pb2.Campaign:
        campaign = campaigns.lock(session, name)
        if campaign.state in (CampaignState.COMPLETED, CampaignState.ARCHIVED):
            raise FailedPrecondition(f"campaign {name!r} is {campaign.state}", field="campaign")
        now = self._store.clock.now()
        if campaign.state != state:
            campaign.state = state
            events.add(session, campaign, messages.state_changed(campaign, now=now))
            session.flush()
        return messages.campaign_message(session, campaign, now=now)

    def _check_pools(self, spec: scheduler_pb2.CampaignSpec) -> index_pb2.Pool:
        pool = self._pool("spec.pool", spec.pool)
        if spec.evaluation_pool:
            held_out_pool = self._pool("spec.evaluation_pool", spec.evaluation_pool)
            held_out = held_out_pool.spec.dimension
            if held_out_pool.spec.name == pool.spec.name:  # by an alias, perhaps
                raise InvalidArgument("spec.evaluation_pool", f"is the same pool as {spec.pool!r}")
            # 0: a pool that cannot be read does not say. It may be mended before the first round.
            if held_out not in (0, pool.spec.dimension):
                raise InvalidArgument(
                    "spec.evaluation_pool",
                    f"pool {spec.evaluation_pool!r} has vectors of {held_out:,} dimensions, and pool {spec.pool!r} of "
                    f"{pool.spec.dimension:,}: embed both with the same encoder",
                )
        if not pool.size:
            raise FailedPrecondition(f"spec.pool: pool {spec.pool!r} is empty", field="spec.pool")
        return pool

    def _pool(self, field: str, name: str) -> index_pb2.Pool:
        try:
            with asking("the index server"):
                return self._index.get_pool(name)
        except NotFound as error:
            raise NotFound(f"pool ({field})", name, field=field) from error
