"""The life of campaigns."""

from collections.abc import Callable, Sequence
from typing import Protocol

from sqlalchemy.orm import Session

from scheduler import messages
from scheduler.asking import asking
from scheduler.cron import check_cron
from scheduler.domain.evaluation_spec import check_pool_has_room
from scheduler.domain.spec import check_spec, normalised, oracle_of
from scheduler.domain.spec_changes import changes, check_budget
from scheduler.domain.states import CampaignState
from scheduler.oracles.registry import OracleRegistry
from scheduler.pools import read_pool
from scheduler.ports import Index
from scheduler.rounds.seeding import check_examples
from scheduler.service.once import Once
from scheduler.storage import campaigns, events, rounds, tasks
from scheduler.storage.models import Campaign
from scheduler.storage.store import Store
from sealpool.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
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
    on_update
        Called with the name of a campaign that was resumed, or whose spec has changed: a round may be due. Must not
        raise.
    """

    def __init__(
        self,
        *,
        store: Store,
        index: Index,
        oracles: OracleRegistry,
        timers: Timers,
        settle: Callable[[str], None],
        on_update: Callable[[str], None],
    ) -> None:
        self._store = store
        self._index = index
        self._oracles = oracles
        self._timers = timers
        self._settle = settle
        self._on_update = on_update
        self._once = Once(store)

    def create(self, request: scheduler_pb2.CreateCampaignRequest) -> scheduler_pb2.CreateCampaignResponse:
        """Begin a campaign, or only say whether it could begin."""
        if request.validate_only:
            return self._validate(request.spec)
        answer = self._once.answered(request, scheduler_pb2.CreateCampaignResponse) or self._create(request)
        self._timers.set_for(request.spec.name)
        return answer

    def update(self, request: scheduler_pb2.UpdateCampaignRequest) -> scheduler_pb2.UpdateCampaignResponse:
        """Change what of the spec may change, or only say what would. The running round ends as it began."""
        if request.validate_only:
            spec = self._checked_update(request.spec)
            with self._store.reading() as session:
                campaign = campaigns.get(session, spec.name)
                changed = self._changes(campaign, spec)
                shown = messages.campaign_message(session, campaign, now=self._store.clock.now())
            return scheduler_pb2.UpdateCampaignResponse(campaign=shown, changed=changed)
        answer = self._once.answered(request, scheduler_pb2.UpdateCampaignResponse) or self._update(request)
        if answer.changed:
            self._timers.set_for(request.spec.name)
            self._on_update(request.spec.name)
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
        self._on_update(request.name)
        return answer

    def archive(self, request: scheduler_pb2.ArchiveCampaignRequest) -> scheduler_pb2.ArchiveCampaignResponse:
        """End a campaign. Its candidate pool is dropped at once, or as soon as the index server is there."""

        def effect(session: Session) -> scheduler_pb2.ArchiveCampaignResponse:
            campaign = campaigns.lock(session, request.name)
            now = self._store.clock.now()
            if campaign.state != CampaignState.ARCHIVED:
                campaign.state = CampaignState.ARCHIVED
                campaign.state_reason = ""
                campaign.drop_pending = True
                tasks.withdraw(session, campaign.id)
                events.add(session, campaign, messages.state_changed(campaign, now=now))
                session.flush()
            return scheduler_pb2.ArchiveCampaignResponse(campaign=messages.campaign_message(session, campaign, now=now))

        answer = self._once.run(request, scheduler_pb2.ArchiveCampaignResponse, effect)
        self._timers.set_for(request.name)
        self._settle(request.name)
        return answer

    def _validate(self, given: scheduler_pb2.CampaignSpec) -> scheduler_pb2.CreateCampaignResponse:
        spec = self._checked(given)
        pool = self._check_pools(spec)
        self._check_seeding(spec)
        self._check_oracle(spec)
        with self._store.reading() as session:
            if campaigns.exists(session, spec.name):
                raise AlreadyExists("campaign", spec.name)
        return scheduler_pb2.CreateCampaignResponse(
            campaign=scheduler_pb2.Campaign(spec=spec), pool_version=pool.version
        )

    def _checked(self, given: scheduler_pb2.CampaignSpec) -> scheduler_pb2.CampaignSpec:
        check_spec(given, oracles=self._oracles.keys())
        spec = normalised(given)
        check_cron("spec.rule.cron", spec.rule.cron)
        return spec

    def _checked_update(self, given: scheduler_pb2.CampaignSpec) -> scheduler_pb2.CampaignSpec:
        """Return the spec, checked on its own and, where that changes, with its oracle."""
        spec = self._checked(given)
        with self._store.reading() as session:
            changed = self._changes(campaigns.get(session, spec.name), spec)
        if any(path.startswith("oracle.") for path in changed):
            self._check_oracle(spec)
        return spec

    def _check_seeding(self, spec: scheduler_pb2.CampaignSpec) -> None:
        with asking("the index server"):
            check_examples(self._index, spec)

    def _check_oracle(self, spec: scheduler_pb2.CampaignSpec) -> None:
        oracle = self._oracles[oracle_of(spec)]
        if oracle is not None:
            with asking("the index server"):
                oracle.check(spec)

    def _changes(self, campaign: Campaign, spec: scheduler_pb2.CampaignSpec) -> Sequence[str]:
        if campaign.state == CampaignState.ARCHIVED:
            raise FailedPrecondition(f"campaign {campaign.name!r} is archived", field="campaign")
        changed = changes(campaigns.spec_of(campaign), spec)
        check_budget(spec, spent=campaign.labelled + campaign.evaluation_labelled)
        return changed

    def _update(self, request: scheduler_pb2.UpdateCampaignRequest) -> scheduler_pb2.UpdateCampaignResponse:
        spec = self._checked_update(request.spec)

        def effect(session: Session) -> scheduler_pb2.UpdateCampaignResponse:
            campaign = campaigns.lock(session, spec.name)
            changed = self._changes(campaign, spec)
            now = self._store.clock.now()
            if changed:
                _change(session, campaign, spec)
                events.add(session, campaign, messages.state_changed(campaign, now=now))
                session.flush()
            shown = messages.campaign_message(session, campaign, now=now)
            return scheduler_pb2.UpdateCampaignResponse(campaign=shown, changed=changed)

        return self._once.run(request, scheduler_pb2.UpdateCampaignResponse, effect)

    def _create(self, request: scheduler_pb2.CreateCampaignRequest) -> scheduler_pb2.CreateCampaignResponse:
        spec = self._checked(request.spec)
        pool = self._check_pools(spec)
        self._check_seeding(spec)
        self._check_oracle(spec)

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
            campaign.state_reason = ""
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
        check_pool_has_room(spec, pool.size)
        return pool

    def _pool(self, field: str, name: str) -> index_pb2.Pool:
        try:
            with asking("the index server"):
                return read_pool(self._index, name)
        except NotFound as error:
            raise NotFound(f"pool ({field})", name, field=field) from error


def _change(session: Session, campaign: Campaign, spec: scheduler_pb2.CampaignSpec) -> None:
    """Give a campaign another spec. One that was completed goes on if it may spend more now."""
    running = rounds.unfinished(session, campaign.id)
    if running is not None and running.spec is None:
        running.spec = campaign.spec
    grew = spec.budget > campaigns.spec_of(campaign).budget
    campaign.spec = spec.SerializeToString(deterministic=True)
    if grew and campaign.state == CampaignState.COMPLETED:
        campaign.state = CampaignState.ACTIVE
        campaign.state_reason = ""
