"""When rounds run by themselves: APScheduler, its job store in the scheduler's database, and our threads.

A stored job names a campaign and nothing else. `RoundExecutor` knows what to do with the name, so that no object of
this process has to be found through a global or pickled into the database.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from apscheduler.events import EVENT_JOB_EXECUTED, JobExecutionEvent
from apscheduler.executors.base import BaseExecutor
from apscheduler.job import Job
from apscheduler.jobstores.base import JobLookupError
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger
from sqlalchemy.exc import SQLAlchemyError

from scheduler.cron import cron_trigger
from scheduler.domain.states import CampaignState
from scheduler.storage import campaigns
from scheduler.storage.models import Campaign
from scheduler.storage.store import Store, database_errors

JOBS_TABLE = "apscheduler_jobs"

_FOLLOWS_S = 1.0
"""Until timers look again whether this process leads, where it did until now. Soon they are paused altogether."""


def run_campaign(campaign: str) -> None:
    """Stand for "run a round of this campaign" in the job store; RoundExecutor does it."""
    raise AssertionError(f"the job of {campaign!r} ran outside RoundExecutor")


class RoundExecutor(BaseExecutor):  # type: ignore[misc]
    """Hands a job's campaign to `fire`, which must return soon, on APScheduler's own thread."""

    def __init__(self, fire: Callable[[str], None]) -> None:
        super().__init__()
        self._fire = fire

    def _do_submit_job(self, job: Job, run_times: Sequence[datetime]) -> None:
        self._fire(*job.args)
        events = [JobExecutionEvent(EVENT_JOB_EXECUTED, job.id, "default", at) for at in run_times]
        self._run_job_success(job.id, events)


class Every(IntervalTrigger):  # type: ignore[misc]
    """So many seconds after the last firing, however late that was.

    APScheduler's own lists each firing that was missed before it drops all but one: 600,000 times for a week of an
    interval of one second.
    """

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """Return the time of the next firing."""
        planned: datetime = super().get_next_fire_time(previous_fire_time, now)
        return planned if previous_fire_time is None or planned > now else now + self.interval


class _SharedJobStore(SQLAlchemyJobStore):  # type: ignore[misc]
    """Leaves the engine to the store, which others still use: APScheduler's own disposes of it when timers stop."""

    def shutdown(self) -> None:
        """Do nothing."""


class _SteadyScheduler(BackgroundScheduler):  # type: ignore[misc]
    """Outlives a database that is away: APScheduler's thread ends where writing a job's next time fails.

    Leaves what is due alone where this process leads no more: it would move on a firing that is the leader's.
    """

    def __init__(self, *, leads: Callable[[], bool], **options: Any) -> None:
        super().__init__(**options)
        self._leads = leads

    def _process_jobs(self) -> float | None:
        if not self._leads():
            return _FOLLOWS_S
        try:
            wait_s: float | None = super()._process_jobs()
        except (SQLAlchemyError, JobLookupError) as error:
            # What fired already fires again, and finds nothing to do. A lost job was removed by another process.
            self._logger.warning("timers put off: %s", error)
            return float(self.jobstore_retry_interval)
        return wait_s


class RuleTimers:
    """The interval and cron rules of all campaigns.

    Timers survive a restart, and a change of the leader, with their next time. Firings missed while no scheduler led
    run once when one does.

    The times are the machine's. A clock that jumps ahead fires what it jumped over, once a timer. One that is set back
    delays no timer: `align` sets those anew that would fire later than one that was set now. A cron rule may then fire
    again at a time that it has fired at; a round begins only if labels have arrived since.

    Parameters
    ----------
    fire
        Begins and runs a round of a campaign; called on the timers' thread.
    leads
        Whether this scheduler leads. One that follows leaves the stored timers to the leader.
    tell
        Tells the leader to look after a campaign.
    """

    def __init__(
        self,
        *,
        store: Store,
        fire: Callable[[str], None],
        leads: Callable[[], bool] = lambda: True,
        tell: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._store = store
        self._leads = leads
        self._tell = tell
        self._stopped = False
        # Held from looking at campaigns to having set their timers, so that the last to look sets them.
        self._setting = threading.Lock()
        self._scheduler = _SteadyScheduler(
            leads=leads,
            jobstores={"default": _SharedJobStore(engine=store.writing_engine, tablename=JOBS_TABLE)},
            executors={"default": RoundExecutor(fire)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
        )

    def align(self) -> None:
        """Bring the stored timers in line with the campaigns, and let them fire, where this scheduler leads.

        Mends what was left by a kill between a campaign's commit and `set_for`, by another process on the same
        database, and by a clock that was set back, after which a timer would wait for its old time.

        Raises
        ------
        Unavailable
            The database is away.
        """
        with self._setting, database_errors():
            if not self._is_ready():
                return
            stored = {job.id: job for job in self._scheduler.get_jobs(jobstore="default")}
            with self._store.reading() as session:
                rows = campaigns.all_by_name(session, include_archived=False)
            self._set(rows, stored)
            self._scheduler.resume()

    def set_for(self, name: str) -> None:
        """Set the campaign's timers if it is active; remove them otherwise. A follower lets the leader do it.

        Raises
        ------
        Unavailable
            The database is away.
        """
        if not self._leads():
            self._tell(name)
            return
        with self._setting, database_errors():
            if not self._is_ready():
                return
            with self._store.reading() as session:
                row = campaigns.get(session, name)
            found = (self._scheduler.get_job(f"{kind}:{name}", jobstore="default") for kind in _KINDS)
            self._set([row], {job.id: job for job in found if job is not None})

    def pause(self) -> None:
        """Fire no more until `align` is called as a leader."""
        if self._scheduler.running:
            self._scheduler.pause()

    def stop(self) -> None:
        """Fire never again. Stopping twice does no harm."""
        self._stopped = True
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def _is_ready(self) -> bool:
        if self._stopped or not self._leads():
            return False
        if not self._scheduler.running:
            self._scheduler.start(paused=True)
        return True

    def _set(self, rows: Sequence[Campaign], stored: Mapping[str, Job]) -> None:
        wanted = {job_id: (row.name, trigger) for row in rows for job_id, trigger in _triggers(row).items()}
        for job_id in stored.keys() - wanted.keys():
            self._remove(job_id)
        for job_id, (name, trigger) in wanted.items():
            if job_id not in stored or _is_other(stored[job_id], trigger) or _is_late(stored[job_id], trigger):
                self._scheduler.add_job(run_campaign, trigger, args=(name,), id=job_id, replace_existing=True)

    def _remove(self, job_id: str) -> None:
        try:
            self._scheduler.remove_job(job_id, jobstore="default")
        except JobLookupError:
            return  # there was none


_KINDS = ("interval", "cron")


def _triggers(row: Campaign) -> dict[str, BaseTrigger]:
    """Return the timers that a campaign should have now, by the id of their job."""
    if row.state != CampaignState.ACTIVE:
        return {}
    rule = campaigns.spec_of(row).rule
    triggers: dict[str, BaseTrigger] = {}
    if rule.interval_seconds:
        triggers[f"interval:{row.name}"] = Every(seconds=rule.interval_seconds, timezone=UTC)
    if rule.cron:
        triggers[f"cron:{row.name}"] = cron_trigger(rule.cron)
    return triggers


def _is_other(stored: Job, fresh: BaseTrigger) -> bool:
    """Whether a stored timer goes by a rule that the campaign has no more."""
    return str(stored.trigger) != str(fresh)


def _is_late(stored: Job, fresh: BaseTrigger) -> bool:
    """Whether a stored timer fires later than one that was set now: never, unless the clock was set back."""
    soonest = fresh.get_next_fire_time(None, datetime.now(UTC))  # APScheduler reads the machine's clock itself
    planned = getattr(stored, "next_run_time", None)
    return soonest is not None and planned is not None and planned > soonest
