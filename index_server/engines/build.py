"""What an engine is built from, and what a kind of engine says of itself."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from index_server.engines.milvus_server import MilvusServer
from index_server.ports import Engine
from index_server.spec import Device, EngineOptions, Metric, VectorType
from sealpool.types import Vectors


class GpuLayout(StrEnum):
    """How an index lies on several GPUs."""

    REPLICAS = "replicas"
    """Each GPU has every item, and takes a part of the queries: the throughput of all."""
    SHARDS = "shards"
    """Each GPU has a part of the items, and takes every query: the memory of all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildRequest:
    """What an engine is built from.

    Parameters
    ----------
    device
        CPU or CUDA, decided.
    items
        How many items the engine is built for.
    sample
        Returns about as many vectors of the pool as it is asked for, the same each time: (n, d). For training.
    saved
        What `Engine.save` gave of an engine of this kind over this pool, or None to train anew.
    threads
        FAISS threads a call.
    seed
        Of everything drawn while building.
    vector_type
        How `vectors` are kept by the engines that can: FLOAT16 halves the memory, and rounds.
    scratch_dir
        Where engines that keep whole vectors on disk put them, in files without a name, gone with the process. None
        keeps them in memory.
    gpus
        GPUs to lie on, from the first.
    gpu_layout
        How it lies on more than one.
    milvus
        The Milvus that this server may use, or None.
    """

    dimension: int
    metric: Metric
    options: EngineOptions
    device: Device
    items: int
    sample: Callable[[int], Vectors]
    saved: bytes | None
    threads: int
    seed: int
    vector_type: VectorType = VectorType.FLOAT32
    scratch_dir: Path | None = None
    gpus: int = 1
    gpu_layout: GpuLayout = GpuLayout.REPLICAS
    milvus: MilvusServer | None = None


def _accept(_dimension: int, _options: EngineOptions, _device: Device) -> None:
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineKind:
    """One line of the registry.

    Parameters
    ----------
    exact
        Whether it finds the true nearest neighbours.
    cuda
        Whether it can lie on a GPU.
    items_to_train
        Items without which it cannot be trained, given the items there are and the options. 0 for no training.
    build
        Returns an empty, trained engine.
    cpu
        Whether it can lie in host memory.
    cuvs
        Whether its GPU form needs a FAISS that was built with cuVS.
    milvus
        Whether it lies in a Milvus.
    check
        Raises InvalidArgument for a dimension or options that it cannot have on a device.
    """

    name: str
    exact: bool
    cuda: bool
    items_to_train: Callable[[int, EngineOptions], int]
    build: Callable[[BuildRequest], Engine]
    cpu: bool = True
    cuvs: bool = False
    milvus: bool = False
    check: Callable[[int, EngineOptions, Device], None] = _accept
