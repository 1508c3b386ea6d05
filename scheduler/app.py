"""The scheduler as a process: its parts, served over gRPC and HTTP."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from scheduler.assembly import Scheduler
from scheduler.domain.clock import Clock, SystemClock
from scheduler.http.opening import open_front
from scheduler.metrics import register_metrics
from scheduler.settings import SchedulerSettings
from sealpool.client import ClientOptions, IndexClient, LearnerClient
from sealpool.client.connection import Connection
from sealpool.errors import SealpoolError
from sealpool.runtime.access import scheduler_access
from sealpool.runtime.logs import Logger, library_log, make_logger
from sealpool.runtime.request_ids import REQUEST_ID
from sealpool.runtime.server import ServiceServer
from sealpool.runtime.settings import load_settings
from sealpool.runtime.tracing import NO_TRACING, CallTracer, open_tracer
from sealpool.v1 import (
    label_studio_pb2,
    label_studio_pb2_grpc,
    scheduler_pb2,
    scheduler_pb2_grpc,
    stream_pb2,
    stream_pb2_grpc,
)


def serve(
    settings: SchedulerSettings,
    scheduler: Scheduler,
    *,
    clients: Sequence[Connection],
    registry: CollectorRegistry,
    log: Logger,
    tracer: CallTracer = NO_TRACING,
) -> ServiceServer:
    """Serve a scheduler over gRPC; health says SERVING when this returns. The server closes it, and its `clients`."""
    register_metrics(registry, scheduler.store, leads=scheduler.leads)
    scheduler.lease_metrics.register(registry)
    scheduler.language_models.metrics.register(registry, scheduler.store)
    server = ServiceServer(
        settings,
        service="scheduler",
        descriptors=[
            scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"],
            stream_pb2.DESCRIPTOR.services_by_name["StreamService"],
            label_studio_pb2.DESCRIPTOR.services_by_name["LabelStudioService"],
        ],
        registry=registry,
        log=log,
        access=scheduler_access(scheduler.pool_of),
        tracer=tracer,
    )
    scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(scheduler.servicer, server.grpc_server)
    stream_pb2_grpc.add_StreamServiceServicer_to_server(scheduler.stream_servicer, server.grpc_server)
    label_studio_pb2_grpc.add_LabelStudioServiceServicer_to_server(scheduler.label_studio_servicer, server.grpc_server)
    server.on_drain(scheduler.drain)
    # Last added, first called: closing the clients ends the calls that rounds are waiting for.
    server.on_close(scheduler.close)
    for client in clients:
        server.on_close(client.close)
    front = open_front(
        settings,
        scheduler.servicers(),
        rules=server.rules,
        is_ready=lambda: server.is_serving,
        routers=scheduler.http_routers,
        log=log,
    )
    if front is not None:
        scheduler.http_address = front.address
        server.on_close(front.close)
    server.start()
    scheduler.start()
    if front is not None:
        front.start()
    server.set_serving()
    return server


def build(settings: SchedulerSettings, *, registry: CollectorRegistry, log: Logger, clock: Clock) -> ServiceServer:
    """Build a scheduler over the learner and the index server that the settings name, and serve it.

    Raises
    ------
    Unavailable
        The database is away.
    FailedPrecondition
        A newer version has migrated the database.
    InvalidArgument
        The database_url names none.
    """
    tracer = open_tracer(settings, "scheduler", log=log)
    rounds, callers = (
        client_options(settings, settings.round_timeout_s, tracer),
        client_options(settings, settings.call_timeout_s, tracer),
    )
    index = IndexClient(settings.index_server, options=rounds)
    callers_index = IndexClient(settings.index_server, options=callers)
    learner = LearnerClient(settings.learner, options=rounds)
    callers_learner = LearnerClient(settings.learner, options=callers)
    scheduler = Scheduler(
        settings,
        index=index,
        learner=learner,
        callers_index=callers_index,
        callers_learner=callers_learner,
        clock=clock,
        log=log,
        tracer=tracer,
    )
    clients = (index, callers_index, learner, callers_learner)
    return serve(settings, scheduler, clients=clients, registry=registry, log=log, tracer=tracer)


def main(argv: Sequence[str]) -> int:
    """Serve until told to stop."""
    settings = load_settings(SchedulerSettings, argv, program="scheduler")
    log = make_logger(settings, "scheduler")
    with library_log("apscheduler", log):
        try:
            server = build(settings, registry=CollectorRegistry(), log=log, clock=SystemClock())
        except SealpoolError as error:
            raise SystemExit(f"scheduler: {' '.join(error.message.split())}") from error
        server.wait_until_stopped()
    return 0


def client_options(settings: SchedulerSettings, timeout_s: float, tracer: CallTracer = NO_TRACING) -> ClientOptions:
    """Return how the services behind are called: rounds try again by themselves, and callers are told at once."""
    return ClientOptions(
        timeout_s=timeout_s,
        long_timeout_s=timeout_s,
        retry_for_s=0,
        ca_certificate=settings.services_ca,
        client_certificate=settings.services_certificate,
        client_key=settings.services_key,
        token="",
        token_file=settings.services_token_file,
        insecure=settings.insecure,
        affinity=True,
        request_id=REQUEST_ID.get,
        tracer=tracer,
    )
