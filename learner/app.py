"""Put the learner together from its settings, and serve it."""

import sys
from collections.abc import Sequence

import torch
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from learner.checkpoints import CheckpointStore
from learner.device import gpu_memory, resolve_device
from learner.embedding import Embedder
from learner.encoders import Encoders
from learner.evaluation import Evaluator
from learner.expansion import Expander, HeldCampaigns
from learner.metrics import LearnerMetrics, SizeCollector
from learner.ports import Index
from learner.predicting import Predictor
from learner.selecting import Selector
from learner.servicer import LearnerServicer, RequestLimits
from learner.settings import LearnerSettings
from learner.training import Trainer
from learner.vectors import VectorReader
from learner.waiting import Turns
from sealpool.client import ClientOptions, IndexClient
from sealpool.errors import SealpoolError
from sealpool.runtime.access import LEARNER_ACCESS
from sealpool.runtime.logs import Logger, make_logger
from sealpool.runtime.server import ServiceServer
from sealpool.runtime.settings import load_settings
from sealpool.v1 import learner_pb2, learner_pb2_grpc


def build_servicer(
    settings: LearnerSettings, index: Index, *, registry: CollectorRegistry, log: Logger
) -> LearnerServicer:
    """Make the rooms of the learner and join them. Raises RuntimeError where the device is not there."""
    device = resolve_device(settings.device)
    metrics = LearnerMetrics(registry)
    checkpoints = CheckpointStore(settings.data_dir, keep=settings.keep_checkpoints, device=device)
    reader = VectorReader(index, cache_bytes=settings.vector_cache_bytes)
    campaigns = HeldCampaigns(
        device, limit_bytes=settings.candidate_cache_bytes, device_limit_bytes=settings.device_candidate_bytes
    )
    encoders = Encoders(
        device,
        keep=settings.keep_encoders,
        batch_tokens=settings.embed_batch_tokens,
        allow_download=settings.allow_download,
        log=log,
    )
    registry.register(
        SizeCollector(
            candidates=campaigns.sizes,
            memory=lambda: {"candidates": campaigns.nbytes(), "vectors": reader.cached_bytes},
            gpu=gpu_memory,
        )
    )
    return LearnerServicer(
        trainer=Trainer(
            index,
            reader=reader,
            checkpoints=checkpoints,
            turns=Turns(
                running=settings.max_trainings,
                waiting=settings.max_waiting_trainings,
                setting="max_waiting_trainings",
            ),
            device=device,
            metrics=metrics,
        ),
        selector=Selector(
            index,
            checkpoints=checkpoints,
            campaigns=campaigns,
            expander=Expander(index, told_per_call=settings.told_per_call),
            device=device,
            metrics=metrics,
            batch_rows=settings.batch_rows,
        ),
        evaluator=Evaluator(
            index,
            reader=reader,
            checkpoints=checkpoints,
            device=device,
            metrics=metrics,
            batch_rows=settings.batch_rows,
        ),
        predictor=Predictor(index, checkpoints=checkpoints, device=device),
        embedder=Embedder(
            encoders,
            metrics=metrics,
            window_texts=settings.embed_window_texts,
            max_text_bytes=settings.max_text_bytes,
        ),
        limits=RequestLimits(
            max_batch=settings.max_batch,
            max_examples=settings.max_examples,
            max_predict_ids=settings.max_predict_ids,
        ),
        progress_interval_s=settings.progress_interval_s,
    )


def build(
    settings: LearnerSettings, *, registry: CollectorRegistry, log: Logger, index: Index | None = None
) -> ServiceServer:
    """Make the service. It starts with `start` and answers health after `set_serving`.

    Parameters
    ----------
    index
        The index server; None connects to the one that the settings name.

    Raises
    ------
    RuntimeError
        The device that the settings name is not there.
    """
    server = ServiceServer(
        settings,
        service="learner",
        descriptors=[learner_pb2.DESCRIPTOR.services_by_name["LearnerService"]],
        registry=registry,
        log=log,
        access=LEARNER_ACCESS,
    )
    if index is None:
        client = IndexClient(settings.index_server, options=_client_options(settings))
        server.on_close(client.close)
        index = client
    servicer = build_servicer(settings, index, registry=registry, log=log)
    learner_pb2_grpc.add_LearnerServiceServicer_to_server(servicer, server.grpc_server)
    return server


def _client_options(settings: LearnerSettings) -> ClientOptions:
    return ClientOptions(
        ca_certificate=settings.services_ca,
        client_certificate=settings.services_certificate,
        client_key=settings.services_key,
        token="",
        token_file=settings.services_token_file,
        insecure=settings.insecure,
    )


def main(argv: Sequence[str]) -> int:
    """Run the learner; return the exit status."""
    try:
        settings = load_settings(LearnerSettings, argv, program="sealpool learner")
        if settings.threads:
            torch.set_num_threads(settings.threads)
        server = build(settings, registry=CollectorRegistry(), log=make_logger(settings, "learner"))
        server.start()
    except (ValidationError, SealpoolError, OSError, RuntimeError) as error:
        sys.stderr.write(f"learner: {error}\n")
        return 1
    server.set_serving()
    server.wait_until_stopped()
    return 0
