"""The index server as a process: built by hand, served until it is told to stop."""

import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from index_server.allocator import return_large_blocks_at_once
from index_server.catalog import PoolCatalog
from index_server.engines.faiss_gpu import gpu_count
from index_server.engines.selection import EngineRules
from index_server.index import IndexSettings
from index_server.limits import Limits
from index_server.metrics import PoolCollector
from index_server.servicer import IndexServicer
from index_server.settings import IndexServerSettings
from index_server.store.directory import PoolDirectory
from sealpool.errors import SealpoolError
from sealpool.runtime.logs import Logger, make_logger
from sealpool.runtime.server import ServiceServer
from sealpool.runtime.settings import load_settings
from sealpool.v1 import index_pb2, index_pb2_grpc


def build(settings: IndexServerSettings, *, registry: CollectorRegistry, log: Logger) -> ServiceServer:
    """Return a server that owns `settings.data_dir`; it begins to load the pools, and says SERVING once they are.

    Raises
    ------
    FailedPrecondition
        Another process owns the directory.
    """
    limits = Limits(**{field.name: getattr(settings, field.name) for field in fields(Limits)})
    catalog = PoolCatalog(
        PoolDirectory(settings.data_dir),
        settings=IndexSettings(
            rules=EngineRules(flat_items=settings.flat_items, gpus=gpu_count()),
            threads=settings.search_threads or len(os.sched_getaffinity(0)),
            seed=settings.training_seed,
            max_removed_share=settings.max_removed_share,
        ),
        limits=limits,
        loading_threads=settings.loading_threads,
        clock=lambda: datetime.now(UTC),
        log=log,
    )
    registry.register(PoolCollector(catalog))
    server = ServiceServer(
        settings,
        service="index_server",
        descriptors=[index_pb2.DESCRIPTOR.services_by_name["IndexService"]],
        registry=registry,
        log=log,
    )
    index_pb2_grpc.add_IndexServiceServicer_to_server(IndexServicer(catalog, limits), server.grpc_server)
    server.on_close(catalog.close)
    server.start()
    catalog.start(server.set_serving)
    return server


def main(argv: Sequence[str]) -> int:
    """Run the index server; return the exit status."""
    return_large_blocks_at_once()
    try:
        settings = load_settings(IndexServerSettings, argv, program="sealpool index-server")
        log = make_logger(settings, "index_server")
        server = build(settings, registry=CollectorRegistry(), log=log)
    except (ValidationError, SealpoolError, OSError, RuntimeError) as error:
        sys.stderr.write(f"index-server: {error}\n")
        return 1
    server.wait_until_stopped()
    return 0
