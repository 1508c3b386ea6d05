"""When rounds run by themselves: APScheduler, its job store in the scheduler's database, and our threads.

A stored job names a campaign and nothing else. `RoundExecutor` knows what to do with the name, so that no object of
this process has to be found through a global or pickled into the database.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from apscheduler.events import EVENT_JOB_EXECUTED, JobExecutionEvent
from apscheduler.executors.base import BaseExecutor
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.job import Job
from apscheduler.jobstores.base import JobLookupError
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger

from scheduler.cron import cron_trigger
from scheduler.domain.states import CampaignState
from scheduler.storage import campaigns
from scheduler.storage.models import Campaign
from scheduler.storage.store import Store

JOBS_TABLE = "apscheduler_jobs"


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


class RuleTimers:
    """The interval and cron rules of all campaigns.

    Timers survive a restart with their next time. Firings missed while the scheduler was down run once when it is back.

    Parameters
    ----------
    fire
        Begins and runs a round of a campaign; called on the timers' thread.
    keep_house, every_s
        What else is to be done regularly, on a thread of its own.
    """

    def __init__(
        self, *, store: Store, fire: Callable[[str], None], keep_house: Callable[[], None], every_s: float
    ) -> None:
        self._store = store
        self._keep_house = keep_house
        self._every_s = every_s
        self._scheduler = BackgroundScheduler(
            jobstores={
                "default": SQLAlchemyJobStore(engine=store.writing_engine, tablename=JOBS_TABLE),
                "memory": MemoryJobStore(),
            },
            executors={"default": RoundExecutor(fire), "house": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
        )

    def start(self) -> None:
        """Bring the stored timers in line with the campaigns, and let them fire."""
        self._scheduler.start(paused=True)
        self._scheduler.add_job(
            self._keep_house, IntervalTrigger(seconds=self._every_s), jobstore="memory", executor="house"
        )
        with self._store.reading() as session:
            rows = campaigns.all_by_name(session, include_archived=True)
        stored = {job.id for job in self._scheduler.get_jobs(jobstore="default")}
        wanted = {job_id for row in rows for job_id in _triggers(row)}
        for job_id in stored - wanted:
            self._remove(job_id)
        for row in rows:
            self._add(row, skip=stored)
        self._scheduler.resume()

    def set_for(self, name: str) -> None:
        """Set the campaign's timers if it is active; remove them otherwise."""
        with self._store.reading() as session:
            row = campaigns.get(session, name)
        wanted = _triggers(row)
        for kind in _KINDS:
            if f"{kind}:{name}" not in wanted:
                self._remove(f"{kind}:{name}")
        self._add(row, skip={job.id for job in self._scheduler.get_jobs(jobstore="default")})

    def stop(self) -> None:
        """Fire no more. Stopping twice does no harm."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def _add(self, row: Campaign, *, skip: set[str]) -> None:
        for job_id, trigger in _triggers(row).items():
            if job_id not in skip:
                self._scheduler.add_job(run_campaign, trigger, args=(row.name,), id=job_id, replace_existing=True)

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
        triggers[f"interval:{row.name}"] = IntervalTrigger(seconds=rule.interval_seconds, timezone=UTC)
    if rule.cron:
        triggers[f"cron:{row.name}"] = cron_trigger(rule.cron)
    return triggers
