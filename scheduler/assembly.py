"""The parts of a scheduler, built by hand, in order, and nothing global."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor

from scheduler.domain.clock import Clock
from scheduler.jobs import RuleTimers
from scheduler.label_studio.room import LabelStudioRoom
from scheduler.leading import Leader
from scheduler.metrics import LeaseMetrics
from scheduler.oracles.llm.endpoints import load_endpoints
from scheduler.oracles.llm.metrics import LlmMetrics
from scheduler.oracles.llm.models import LanguageModels
from scheduler.oracles.llm.oracle import LlmOracle
from scheduler.oracles.registry import make_oracles
from scheduler.ports import Index, Learner
from scheduler.rounds.beginning import RoundStarter
from scheduler.rounds.phases import Phases
from scheduler.rounds.pool import RoundPool
from scheduler.rounds.runner import RetryPolicy, RoundRunner
from scheduler.service import (
    AnnotationService,
    AuditService,
    CampaignService,
    ErasureService,
    LabelService,
    OracleReportService,
    ReviewService,
    RoundService,
    TaskService,
    WatchService,
)
from scheduler.service.housekeeping import Housekeeper
from scheduler.servicer import SchedulerServicer
from scheduler.settings import SchedulerSettings
from scheduler.storage.engine import open_engine
from scheduler.storage.leadership import lock_for
from scheduler.storage.migrate import migrate
from scheduler.storage.store import Store
from scheduler.streams.service import StreamService
from scheduler.streams.servicer import StreamServicer
from scheduler.synthesis.making import Maker
from scheduler.synthesis.paraphrasing import LanguageModelParaphraser
from scheduler.synthesis.service import SynthesisService
from sealpool.errors import NotFound
from sealpool.runtime.logs import Logger
from sealpool.runtime.tracing import NO_TRACING, Tracer
from sealpool.v1 import (
    label_studio_pb2,
    label_studio_pb2_grpc,
    scheduler_pb2,
    scheduler_pb2_grpc,
    stream_pb2,
    stream_pb2_grpc,
)


class Scheduler:
    """The parts of a scheduler that live as long as it does.

    Parameters
    ----------
    index, learner
        What rounds call, with long deadlines.
    callers_index, callers_learner
        What callers' requests ask, with short deadlines.
    """

    def __init__(
        self,
        settings: SchedulerSettings,
        *,
        index: Index,
        learner: Learner,
        callers_index: Index,
        callers_learner: Learner,
        clock: Clock,
        log: Logger,
        tracer: Tracer = NO_TRACING,
    ) -> None:
        endpoints = load_endpoints(settings.llm_endpoints)
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        engine = open_engine(settings.database(), connections=settings.database_connections)
        self.store = Store(engine, clock=clock, tracer=tracer)
        migrate(self.store)
        self.lease_metrics = LeaseMetrics()
        self.language_models = LanguageModels(endpoints, metrics=LlmMetrics(), log=log)
        language_model = LlmOracle(index=index, store=self.store, models=self.language_models)
        oracles = make_oracles(index, language_model=language_model)
        phases = Phases(store=self.store, learner=learner, index=index, oracles=oracles)
        retry = RetryPolicy(retry_for_s=settings.retry_for_s)
        self._grace_s = settings.grace_s
        self._ends_at = float("-inf")
        holder = f"{socket.gethostname()}:{os.getpid()}"
        self.leader = Leader(store=self.store, lock=lock_for(self.store), holder=holder, log=log)
        starter = RoundStarter(store=self.store, index=callers_index, oracles=oracles, log=log)
        self.pool = RoundPool(
            runner=RoundRunner(
                store=self.store, phases=phases, retry=retry, epoch=self.leader.epoch, log=log, tracer=tracer
            ),
            starter=starter,
            threads=settings.round_threads,
            epoch=self.leader.epoch,
            doubt=self.leader.doubt,
            tell=self.leader.tell,
            log=log,
        )
        self._timers = RuleTimers(store=self.store, fire=self.pool.fire, leads=self.leads, tell=self.leader.tell)
        self._house = Housekeeper(
            store=self.store,
            index=callers_index,
            pool=self.pool,
            leads=self.leads,
            timers=self._timers,
            every_s=settings.resume_every_s,
            request_ids_kept_s=settings.request_ids_kept_s,
            log=log,
        )
        self._watch = WatchService(store=self.store, max_watchers=settings.max_watchers)
        self._campaigns = CampaignService(
            store=self.store,
            index=callers_index,
            oracles=make_oracles(callers_index, language_model=language_model),
            timers=self._timers,
            settle=self._house.settle,
            on_update=self.pool.nudge,
        )
        self.servicer = SchedulerServicer(
            campaigns=self._campaigns,
            rounds=RoundService(store=self.store, starter=starter, pool=self.pool),
            tasks=TaskService(
                store=self.store,
                index=callers_index,
                learner=callers_learner,
                max_lease_tasks=settings.max_lease_tasks,
                log=log,
                on_expired=self.lease_metrics.count_expired,
            ),
            labels=LabelService(
                store=self.store, index=callers_index, max_labels=settings.max_labels, on_labels=self.pool.nudge
            ),
            annotations=AnnotationService(store=self.store),
            reviews=ReviewService(store=self.store, learner=learner, max_items=settings.max_lease_tasks),
            audits=AuditService(store=self.store, index=callers_index),
            oracle_reports=OracleReportService(store=self.store),
            watch=self._watch,
            erasure=ErasureService(store=self.store, index=callers_index, max_names=settings.max_labels),
        )
        self.stream_servicer = StreamServicer(
            streams=StreamService(
                store=self.store, index=callers_index, learner=learner, max_labels=settings.max_labels
            ),
            synthesis=SynthesisService(
                store=self.store,
                index=callers_index,
                maker=Maker(
                    store=self.store,
                    index=callers_index,
                    learner=learner,
                    paraphraser=LanguageModelParaphraser(store=self.store, models=self.language_models),
                ),
                max_count=settings.max_lease_tasks,
                on_labels=self.pool.nudge,
            ),
        )
        self.label_studio = LabelStudioRoom(
            settings,
            store=self.store,
            index=callers_index,
            learner=learner,
            on_labels=self.pool.nudge,
            is_leading=self.leads,
            log=log,
        )
        self.label_studio_servicer = self.label_studio.servicer
        self.http_routers: list[Callable[[], Any]] = [self.label_studio.router]
        """Each makes a FastAPI router of the HTTP front; see `scheduler.http.app.build_app`."""
        self.http_address = ""
        """Where the HTTP front listens; "" if nowhere."""

    def servicers(self) -> Mapping[ServiceDescriptor, tuple[object, type]]:
        """Return who answers each service, and the generated class it derives from."""
        scheduling = scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"]
        streaming = stream_pb2.DESCRIPTOR.services_by_name["StreamService"]
        linking = label_studio_pb2.DESCRIPTOR.services_by_name["LabelStudioService"]
        return {
            scheduling: (self.servicer, scheduler_pb2_grpc.SchedulerServiceServicer),
            streaming: (self.stream_servicer, stream_pb2_grpc.StreamServiceServicer),
            linking: (self.label_studio_servicer, label_studio_pb2_grpc.LabelStudioServiceServicer),
        }

    def start(self) -> None:
        """Lead if nobody does: take up the rounds that were cut off, and let the timers fire."""
        self.leader.start(on_lead=self._house.keep_soon, on_told=self._look_after)
        self._house.start()
        self.label_studio.loop.start()

    def leads(self) -> bool:
        """Whether this scheduler runs rounds, timers and housekeeping; otherwise another does, or will soon."""
        return self.leader.epoch() is not None

    def _look_after(self, name: str) -> None:
        self.pool.nudge(name)
        self._house.look_after_soon(name)

    def pool_of(self, campaign: str) -> str:
        """Return the pool of a campaign, "" where there is no such campaign."""
        try:
            return self._campaigns.get(campaign).spec.pool
        except NotFound:
            return ""

    def drain(self) -> None:
        """Begin nothing new; rounds stop before their next phase, and watches end.

        The lead is given up at once, or once the language models have answered what they were asked: whoever leads next
        would ask, and pay for, the same again.
        """
        self._ends_at = time.monotonic() + self._grace_s
        self._house.stop()
        self.label_studio.loop.stop()
        self._timers.stop()
        self.pool.stop()
        self.language_models.stop()
        self.language_models.when_idle(self.leader.stop)
        self._watch.stop()

    def close(self) -> None:
        """Wait for the threads and close the database. The clients must be closed before.

        Language models have `grace_s` from `drain` on to answer.
        """
        self.language_models.end(max(0.0, self._ends_at - time.monotonic()))
        self._house.close()
        self.label_studio.close()
        self.pool.close()
        self.leader.close()
        self.language_models.close()
        self.store.close()
