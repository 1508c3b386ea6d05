"""Put the learner together from its settings, and serve it."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from learner.checkpoints import CheckpointStore
from learner.choosing import StrategyChooser
from learner.cross_predicting import CrossPredictor
from learner.device import gpu_memory, gpu_memory_total, memory_bytes, resolve_device
from learner.embedding import Embedder
from learner.encoders import Encoders
from learner.evaluation import Evaluator
from learner.expansion import Expander, HeldCampaigns
from learner.idle import Every
from learner.labelled import LabelledReader
from learner.metrics import LearnerMetrics, SizeCollector
from learner.models import make_classifier
from learner.predicting import Predictor
from learner.propagation import Propagator
from learner.reembedding.index_port import WritableIndex
from learner.reembedding.jobs import ReembeddingJobs
from learner.selecting import Selector
from learner.servicer import LearnerServicer, RequestLimits
from learner.settings import LearnerSettings
from learner.training import Trainer
from learner.vectors import VectorReader
from learner.waiting import TrainingQueue
from sealpool.client import ClientOptions, IndexClient
from sealpool.errors import SealpoolError
from sealpool.runtime.access import LEARNER_ACCESS
from sealpool.runtime.logs import Logger, make_logger
from sealpool.runtime.request_ids import REQUEST_ID
from sealpool.runtime.server import ServiceServer
from sealpool.runtime.settings import load_settings
from sealpool.runtime.tracing import NO_TRACING, CallTracer, Tracer, open_tracer
from sealpool.v1 import learner_pb2, learner_pb2_grpc

_UPKEEP_S: Final = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Rooms:
    """The rooms of the learner, joined. What works in the background begins with `start` and ends with `close`."""

    servicer: LearnerServicer
    jobs: ReembeddingJobs
    upkeep: Every

    def start(self) -> None:
        """Go on with what was under way when the learner stopped."""
        self.jobs.resume()
        self.upkeep.start()

    def close(self) -> None:
        """Stop what works in the background; it goes on after the next start."""
        self.upkeep.stop()
        self.jobs.close()


def build_rooms(
    settings: LearnerSettings,
    index: WritableIndex,
    *,
    registry: CollectorRegistry,
    log: Logger,
    tracer: Tracer = NO_TRACING,
) -> Rooms:
    """Make the rooms of the learner and join them. Raises RuntimeError where the device is not there."""
    device = resolve_device(settings.device)
    metrics = LearnerMetrics(registry)
    make = partial(make_classifier, allow_download=settings.allow_download)
    checkpoints = CheckpointStore(
        settings.data_dir, keep=settings.keep_checkpoints, device=device, keep_loaded=settings.keep_models, make=make
    )
    reader = VectorReader(index, cache_bytes=settings.vector_cache_bytes)
    campaigns = HeldCampaigns(
        device,
        limit_bytes=settings.candidate_cache_bytes,
        device_limit_bytes=settings.device_candidate_bytes,
        idle_s=settings.idle_campaign_s,
    )
    encoders = Encoders(
        device,
        keep=settings.keep_encoders,
        batch_tokens=settings.embed_batch_tokens,
        allow_download=settings.allow_download,
        log=log,
        compile_models=settings.compile_encoders,
        classifier_of=lambda campaign, round_number: checkpoints.load(campaign, round_number).classifier,
    )
    jobs = ReembeddingJobs(
        settings.data_dir / "reembedding",
        index,
        encoders,
        batch_items=settings.embed_window_texts,
        max_waiting=settings.max_waiting_reembeddings,
        log=log,
    )
    queue = TrainingQueue(
        running=settings.max_trainings,
        waiting=settings.max_waiting_trainings,
        memory_bytes=settings.training_memory_bytes or 3 * memory_bytes(device) // 4,
        setting="max_waiting_trainings",
    )
    registry.register(
        SizeCollector(
            candidates=campaigns.sizes,
            memory=lambda: {"candidates": campaigns.nbytes(), "vectors": reader.cached_bytes},
            gpu=gpu_memory,
            gpu_total=gpu_memory_total,
            waiting=lambda: queue.waiting,
            running=lambda: queue.running,
        )
    )
    servicer = LearnerServicer(
        trainer=Trainer(
            index,
            reader=reader,
            checkpoints=checkpoints,
            queue=queue,
            device=device,
            metrics=metrics,
            make=make,
            tracer=tracer,
        ),
        selector=Selector(
            index,
            checkpoints=checkpoints,
            campaigns=campaigns,
            expander=Expander(index, told_per_call=settings.told_per_call),
            chooser=StrategyChooser(LabelledReader(reader=reader, device=device)),
            device=device,
            metrics=metrics,
            batch_rows=settings.batch_rows,
            tracer=tracer,
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
        cross_predictor=CrossPredictor(
            index,
            reader=reader,
            queue=queue,
            device=device,
            metrics=metrics,
            batch_rows=settings.batch_rows,
            make=make,
        ),
        propagator=Propagator(
            index,
            queue=queue,
            device=device,
            metrics=metrics,
            memory_bytes=settings.propagation_memory_bytes or memory_bytes(device) // 2,
        ),
        embedder=Embedder(
            encoders,
            metrics=metrics,
            window_texts=settings.embed_window_texts,
            max_text_bytes=settings.max_text_bytes,
        ),
        jobs=jobs,
        limits=RequestLimits(
            max_batch=settings.max_batch,
            max_examples=settings.max_examples,
            max_predict_ids=settings.max_predict_ids,
        ),
        progress_interval_s=settings.progress_interval_s,
    )
    upkeep = Every(min(_UPKEEP_S, settings.idle_campaign_s), campaigns.release_idle, name="upkeep")
    return Rooms(servicer=servicer, jobs=jobs, upkeep=upkeep)


def build(
    settings: LearnerSettings, *, registry: CollectorRegistry, log: Logger, index: WritableIndex | None = None
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
    tracer = open_tracer(settings, "learner", log=log)
    server = ServiceServer(
        settings,
        service="learner",
        descriptors=[learner_pb2.DESCRIPTOR.services_by_name["LearnerService"]],
        registry=registry,
        log=log,
        access=LEARNER_ACCESS,
        tracer=tracer,
    )
    if index is None:
        client = IndexClient(settings.index_server, options=_client_options(settings, tracer))
        server.on_close(client.close)
        index = client
    rooms = build_rooms(settings, index, registry=registry, log=log, tracer=tracer)
    learner_pb2_grpc.add_LearnerServiceServicer_to_server(rooms.servicer, server.grpc_server)
    # Before calls under way have ended: those that watch a job would never.
    server.on_drain(rooms.close)
    rooms.start()
    return server


def _client_options(settings: LearnerSettings, tracer: CallTracer) -> ClientOptions:
    return ClientOptions(
        ca_certificate=settings.services_ca,
        client_certificate=settings.services_certificate,
        client_key=settings.services_key,
        token="",
        token_file=settings.services_token_file,
        insecure=settings.insecure,
        request_id=REQUEST_ID.get,
        tracer=tracer,
    )


def main(argv: Sequence[str]) -> int:
    """Run the learner; return the exit status."""
    try:
        settings = load_settings(LearnerSettings, argv, program="sealpool learner")
        # The libraries' progress bars would stand between our lines of log; read when transformers is first imported.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        if not settings.allow_download:
            # Else what their calls leave unsaid is asked of the hub: for adapters, and once a day who it is that asks.
            os.environ["HF_HUB_OFFLINE"] = "1"
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
