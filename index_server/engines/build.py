"""What an engine is built from, and what a kind of engine says of itself."""

from collections.abc import Callable
from dataclasses import dataclass

from index_server.ports import Engine
from index_server.spec import Device, EngineOptions, Metric
from sealpool.types import Vectors


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
    """

    name: str
    exact: bool
    cuda: bool
    items_to_train: Callable[[int, EngineOptions], int]
    build: Callable[[BuildRequest], Engine]
