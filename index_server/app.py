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
from index_server.engines.faiss_gpu import gpu_count, gpu_memory_bytes, has_cuvs
from index_server.engines.milvus_server import MilvusServer
from index_server.engines.selection import EngineRules
from index_server.index import IndexSettings
from index_server.limits import Limits
from index_server.merging import MergeLimits, MergeObserver
from index_server.metrics import FillCollector, PoolCollector, SearchMetrics
from index_server.milvus_opening import open_milvus
from index_server.places import Places
from index_server.pool import UpkeepSettings
from index_server.servicer import IndexServicer
from index_server.settings import IndexServerSettings
from index_server.store.directory import PoolDirectory
from index_server.store.watermarks import Watermarks, memory_limit
from sealpool.errors import SealpoolError
from sealpool.runtime.access import INDEX_ACCESS
from sealpool.runtime.logs import Logger, make_logger
from sealpool.runtime.server import ServiceServer
from sealpool.runtime.settings import load_settings
from sealpool.runtime.tracing import Tracer, open_tracer
from sealpool.v1 import index_pb2, index_pb2_grpc


def build(settings: IndexServerSettings, *, registry: CollectorRegistry, log: Logger) -> ServiceServer:
    """Return a server that owns `settings.data_dir`; it begins to load the pools, and says SERVING once they are.

    Raises
    ------
    FailedPrecondition
        Another process owns the directory; or see open_milvus.
    """
    tracer = open_tracer(settings, "index_server", log=log)
    limits = Limits(**{field.name: getattr(settings, field.name) for field in fields(Limits)})
    directory = PoolDirectory(settings.data_dir)
    milvus = open_milvus(settings, log=log)
    watermarks = Watermarks(
        settings.data_dir,
        disk_throttle_share=settings.disk_throttle_share,
        disk_refuse_share=settings.disk_refuse_share,
        memory_limit_bytes=memory_limit(settings.memory_limit_bytes),
        memory_throttle_share=settings.memory_throttle_share,
        memory_refuse_share=settings.memory_refuse_share,
    )
    catalog = PoolCatalog(
        directory,
        settings=_index_settings(settings, SearchMetrics(registry), tracer, milvus),
        upkeep=UpkeepSettings(
            quiet_s=settings.rebuild_quiet_s,
            patience_s=settings.rebuild_patience_s,
            compaction_bytes=settings.compaction_bytes,
        ),
        limits=limits,
        watermarks=watermarks,
        places=Places(
            snapshot_roots=settings.snapshot_roots or (str((settings.data_dir / "snapshots").absolute()),),
            source_roots=settings.source_roots,
        ),
        loading_threads=settings.loading_threads,
        clock=lambda: datetime.now(UTC),
        log=log,
    )
    registry.register(
        PoolCollector(catalog, max_candidates=limits.max_candidates, gpu_memory_total_bytes=gpu_memory_bytes())
    )
    registry.register(FillCollector(watermarks))
    server = ServiceServer(
        settings,
        service="index_server",
        descriptors=[index_pb2.DESCRIPTOR.services_by_name["IndexService"]],
        registry=registry,
        log=log,
        access=INDEX_ACCESS,
        tracer=tracer,
    )
    index_pb2_grpc.add_IndexServiceServicer_to_server(IndexServicer(catalog, limits), server.grpc_server)
    server.on_close(catalog.close)
    if milvus is not None:
        server.on_close(milvus.close)
    server.start()
    catalog.start(server.set_serving)
    return server


def _index_settings(
    settings: IndexServerSettings, observer: MergeObserver, tracer: Tracer, milvus: MilvusServer | None
) -> IndexSettings:
    return IndexSettings(
        rules=EngineRules(
            flat_items=settings.flat_items,
            gpus=gpu_count(),
            gpu_memory_bytes=gpu_memory_bytes(),
            gpu_layout=settings.gpu_layout,
            cuvs=has_cuvs(),
            milvus=milvus is not None,
            host_memory_bytes=memory_limit(settings.memory_limit_bytes),
            measurable_items=settings.measurable_items,
        ),
        threads=settings.search_threads or len(os.sched_getaffinity(0)),
        seed=settings.training_seed,
        max_removed_share=settings.max_removed_share,
        merging=MergeLimits(
            max_queries=settings.merge_max_queries,
            max_wait_s=settings.merge_max_wait_s,
            max_waiting=settings.merge_max_waiting,
            width=settings.parallel_searches,
        ),
        observer=observer,
        tracer=tracer,
        milvus=milvus,
    )


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
