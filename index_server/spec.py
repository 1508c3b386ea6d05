"""What is chosen when a pool is made."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from sealpool.errors import InvalidArgument
from sealpool.validation import MAX_DIMENSION, check_name

ENGINE_AUTO = "auto"


class Metric(StrEnum):
    """How near two vectors are."""

    COSINE = "cosine"
    INNER_PRODUCT = "inner_product"
    L2 = "l2"

    @property
    def higher_is_nearer(self) -> bool:
        """Whether a larger score means a nearer item."""
        return self is not Metric.L2


class VectorType(StrEnum):
    """How vectors are kept on disk."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The NumPy type of one number."""
        return np.dtype(self.value)


class Device(StrEnum):
    """Where the index lies."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """Numbers that an engine can be told. 0 means the engine's default."""

    ivf_lists: int = 0
    ivf_probes: int = 0
    hnsw_neighbors: int = 0
    hnsw_ef_construction: int = 0
    hnsw_ef_search: int = 0

    def check(self) -> None:
        """Raise InvalidArgument for a number out of its range."""
        for name, value in asdict(self).items():
            low, high = _OPTION_LIMITS[name]
            if value and not low <= value <= high:
                raise InvalidArgument(f"spec.options.{name}", f"{value:,} is not in {low:,} to {high:,}")


_OPTION_LIMITS = {
    "ivf_lists": (1, 1 << 20),
    "ivf_probes": (1, 1 << 20),
    "hnsw_neighbors": (2, 512),
    "hnsw_ef_construction": (1, 10_000),
    "hnsw_ef_search": (1, 10_000),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolSpec:
    """A pool's name and everything about it that never changes."""

    name: str
    dimension: int
    metric: Metric = Metric.COSINE
    vector_type: VectorType = VectorType.FLOAT32
    engine: str = ENGINE_AUTO
    device: Device = Device.AUTO
    options: EngineOptions = field(default_factory=EngineOptions)

    def check(self) -> None:
        """Raise InvalidArgument for a name, dimension or option out of range. The engine's name is not looked at."""
        check_name("spec.name", self.name)
        if not 1 <= self.dimension <= MAX_DIMENSION:
            raise InvalidArgument("spec.dimension", f"{self.dimension:,} is not in 1 to {MAX_DIMENSION:,}")
        self.options.check()

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "PoolSpec":
        """Return the spec that `to_json` wrote.

        Raises
        ------
        KeyError, TypeError, ValueError
            `data` is not such a spec.
        """
        return cls(
            name=data["name"],
            dimension=int(data["dimension"]),
            metric=Metric(data["metric"]),
            vector_type=VectorType(data["vector_type"]),
            engine=data["engine"],
            device=Device(data["device"]),
            options=EngineOptions(**data["options"]),
        )
