"""A gRPC server of ours with a servicer that answers as the pool's name asks it to, its log and its spans."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from sealpool.client import ClientOptions, IndexClient
from sealpool.errors import NotFound, Unavailable
from sealpool.runtime.logs import Logger, make_logger
from sealpool.runtime.server import ServiceServer
from sealpool.runtime.settings import ServiceSettings
from sealpool.runtime.tracing import NO_TRACING, CallTracer
from sealpool.v1 import index_pb2, index_pb2_grpc


class SmallServicer(index_pb2_grpc.IndexServiceServicer):
    def __init__(self, log: Logger) -> None:
        self._log = log
        self.calls = 0
        self.streams_ended = threading.Semaphore(0)

    def GetPool(self, request: index_pb2.GetPoolRequest, context: grpc.ServicerContext) -> index_pb2.GetPoolResponse:
        self.calls += 1
        self._log.info("asked", pool=request.name)
        if request.name == "bug":
            raise ZeroDivisionError("of the service's own")
        if request.name == "missing":
            raise NotFound("pool", request.name)
        if request.name == "twice-away" and self.calls < 3:
            raise Unavailable("loading")
        return index_pb2.GetPoolResponse(pool=index_pb2.Pool(version=self.calls))

    def ScanItems(
        self, request: index_pb2.ScanItemsRequest, context: grpc.ServicerContext
    ) -> Iterator[index_pb2.ScanItemsResponse]:
        try:
            for version in range(1, 1_000_000 if request.pool == "endless" else 4):
                yield index_pb2.ScanItemsResponse(pool_version=version)
        finally:
            self.streams_ended.release()


class SmallService:
    def __init__(self, *, tracer: CallTracer = NO_TRACING, **settings: Any) -> None:
        chosen = ServiceSettings.model_validate({"log_level": "debug", "metrics_listen": "", **settings})
        self.log = io.StringIO()
        log = make_logger(chosen, "index_server", stream=self.log)
        self.servicer = SmallServicer(log)
        self.server = ServiceServer(
            chosen,
            service="index_server",
            descriptors=[index_pb2.DESCRIPTOR.services_by_name["IndexService"]],
            registry=CollectorRegistry(),
            log=log,
            tracer=tracer,
        )
        index_pb2_grpc.add_IndexServiceServicer_to_server(self.servicer, self.server.grpc_server)
        self.server.start()
        self.server.set_serving()

    def client(self, *, tracer: CallTracer = NO_TRACING, request_id: Callable[[], str] | None = None) -> IndexClient:
        options = ClientOptions(retry_for_s=5, timeout_s=30, tracer=tracer, request_id=request_id)
        return IndexClient(self.server.address, options=options)

    def lines(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in lines if line["event"] == event]
