"""What probes are told: over the service's own port, and where it is wanted over one of health's own."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from sealpool.runtime.aside import AsideInterceptor
from sealpool.runtime.logs import Logger

LIVENESS = "liveness"
"""The name under which health says SERVING for as long as the process answers, also while it loads or drains."""

_THREADS = 2
_END_S = 2.0


class Health:
    """The statuses of a service, said over any server that they are added to.

    Parameters
    ----------
    services
        Full names of the gRPC services; they have one status, which "" has too. NOT_SERVING until `set_serving`.
    """

    def __init__(self, services: Sequence[str], *, log: Logger) -> None:
        self._names = ("", *services)
        self._statuses = health.HealthServicer()
        self._aside = AsideInterceptor(log=log)
        self._server: grpc.Server | None = None
        self._statuses.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        self.set_not_serving()

    def set_serving(self) -> None:
        """Say SERVING."""
        self._set(health_pb2.HealthCheckResponse.SERVING)

    def set_not_serving(self) -> None:
        """Say NOT_SERVING, but of `LIVENESS`."""
        self._set(health_pb2.HealthCheckResponse.NOT_SERVING)

    def _set(self, status: "health_pb2.HealthCheckResponse.ServingStatus.ValueType") -> None:
        for name in self._names:
            self._statuses.set(name, status)

    def add_to(self, server: grpc.Server) -> None:
        """Answer over a server."""
        health_pb2_grpc.add_HealthServicer_to_server(self._statuses, server)

    def listen(self, address: str) -> str:
        """Answer over a plain server of its own, and return where it listens. Raises RuntimeError if it cannot.

        It has threads of its own, so it answers a probe also while every call that the service takes is under way.
        """
        server = grpc.server(
            ThreadPoolExecutor(_THREADS, thread_name_prefix="probe"),
            interceptors=[self._aside],
            options=[("grpc.so_reuseport", 0)],
        )
        self.add_to(server)
        port = server.add_insecure_port(address)
        self._aside.start()
        server.start()
        self._server = server
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    def close(self) -> None:
        """Close the server of its own, if there is one."""
        if self._server is not None:
            self._server.stop(0).wait(_END_S)
            self._aside.stop()
