"""What is chosen when a pool is made."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from sealpool.errors import InvalidArgument
from sealpool.validation import MAX_DIMENSION, check_name

ENGINE_AUTO = "auto"
DEFAULT_MIN_RECALL = 0.95
DEFAULT_GRAPH_NEIGHBORS = 100
MAX_GRAPH_NEIGHBORS = 1024


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
    pq_subquantizers: int = 0
    lsh_bits: int = 0
    refine_factor: int = 0
    cagra_degree: int = 0

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
    "pq_subquantizers": (1, MAX_DIMENSION),
    "lsh_bits": (8, 2 * MAX_DIMENSION),
    "refine_factor": (1, 1000),
    "cagra_degree": (4, 512),
}


class GraphKind(StrEnum):
    """Which items' nearest neighbours are kept on disk."""

    NONE = "none"
    LAZY = "lazy"
    FULL = "full"


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphSpec:
    """A pool's neighbour graph: of which items, and how many neighbours each."""

    kind: GraphKind = GraphKind.NONE
    neighbors: int = DEFAULT_GRAPH_NEIGHBORS


@dataclass(frozen=True, kw_only=True, slots=True)
class LanceSource:
    """A Lance data set of another system. A payload column is "" where there is none."""

    uri: str
    id_column: str = "id"
    vector_column: str = "vector"
    text_column: str = ""
    uri_column: str = ""
    metadata_column: str = ""


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
    min_recall: float = DEFAULT_MIN_RECALL
    graph: GraphSpec = field(default_factory=GraphSpec)
    source: LanceSource | None = None

    def check(self) -> None:
        """Raise InvalidArgument for a name, dimension or option out of range. The engine's name is not looked at."""
        check_name("spec.name", self.name)
        if not 1 <= self.dimension <= MAX_DIMENSION:
            raise InvalidArgument("spec.dimension", f"{self.dimension:,} is not in 1 to {MAX_DIMENSION:,}")
        self.options.check()
        if not 0 < self.min_recall <= 1:
            raise InvalidArgument("spec.min_recall", f"{self.min_recall:g} is not in 0 to 1")
        if not 1 <= self.graph.neighbors <= MAX_GRAPH_NEIGHBORS:
            raise InvalidArgument(
                "spec.neighbor_graph.neighbors", f"{self.graph.neighbors:,} is not in 1 to {MAX_GRAPH_NEIGHBORS:,}"
            )
        if self.source is not None and not self.source.uri:
            raise InvalidArgument("spec.source.uri", "is missing")

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "PoolSpec":
        """Return the spec that `to_json` wrote.

        Raises
        ------
        KeyError, TypeError, ValueError
            `data` is not such a spec. What the version of sealpool that wrote it did not know has its default.
        """
        return cls(
            name=data["name"],
            dimension=int(data["dimension"]),
            metric=Metric(data["metric"]),
            vector_type=VectorType(data["vector_type"]),
            engine=data["engine"],
            device=Device(data["device"]),
            options=EngineOptions(**data["options"]),
            min_recall=float(data.get("min_recall", DEFAULT_MIN_RECALL)),
            graph=_graph_from_json(data.get("graph", {})),
            source=LanceSource(**data["source"]) if data.get("source") else None,
        )


def _graph_from_json(data: dict[str, Any]) -> GraphSpec:
    return GraphSpec(
        kind=GraphKind(data.get("kind", GraphKind.NONE)), neighbors=int(data.get("neighbors", DEFAULT_GRAPH_NEIGHBORS))
    )
