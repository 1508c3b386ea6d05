"""What `pool create` was told, as a PoolSpec."""

from enum import StrEnum
from typing import Annotated

import typer

from sealpool.cli.options import UINT32_MAX
from sealpool.v1 import common_pb2, index_pb2


class Metric(StrEnum):
    """How near two vectors are."""

    COSINE = "cosine"
    INNER_PRODUCT = "inner_product"
    L2 = "l2"


class DType(StrEnum):
    """How vectors are kept on disk."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


class Engine(StrEnum):
    """What finds neighbours."""

    AUTO = "auto"
    FLAT = "flat"
    IVF_FLAT = "ivf_flat"
    IVF_PQ = "ivf_pq"
    HNSW = "hnsw"
    LSH = "lsh"
    CAGRA = "cagra"
    MILVUS = "milvus"


class Device(StrEnum):
    """Where neighbours are found."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Graph(StrEnum):
    """Whose nearest neighbours are kept."""

    NONE = "none"
    LAZY = "lazy"
    FULL = "full"


MetricOption = Annotated[
    Metric,
    typer.Option("--metric", help="How near two vectors are. cosine suits text embeddings; l2 raw measurements."),
]
DTypeOption = Annotated[
    DType, typer.Option("--dtype", help="How vectors are kept on disk. float16 halves it and loses the last digits.")
]
EngineOption = Annotated[
    Engine,
    typer.Option(
        "--engine",
        help="What finds neighbours: flat is exact; ivf_flat and hnsw are faster on large pools and approximate; "
        "ivf_pq and lsh take less memory; cagra is for a GPU and pools that no longer change; milvus keeps the index "
        "in a Milvus; auto chooses by size and device.",
    ),
]
DeviceOption = Annotated[
    Device, typer.Option("--device", help="Where neighbours are found; auto takes a GPU where FAISS finds one.")
]

_ENGINE, _SOURCE = "Engine options (0: the engine's default)", "A Lance data set that another system wrote"


def _number(what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(min=0, max=UINT32_MAX, help=what, rich_help_panel=_ENGINE)
    return option


IvfLists = Annotated[int, _number("ivf_flat, ivf_pq: clusters. More: faster, longer to build.")]
IvfProbes = Annotated[int, _number("ivf_flat, ivf_pq: clusters a query looks into. More: slower, better recall.")]
HnswNeighbors = Annotated[int, _number("hnsw, milvus: links an item. More: memory, recall.")]
HnswEfConstruction = Annotated[int, _number("hnsw, milvus: breadth while building.")]
HnswEfSearch = Annotated[int, _number("hnsw, milvus: breadth while searching.")]
PqSubquantizers = Annotated[int, _number("ivf_pq: bytes a vector, a divisor of the dimension.")]
LshBits = Annotated[int, _number("lsh: bits of a code.")]
RefineFactor = Annotated[int, _number("ivf_pq, lsh: times k candidates that are compared by their true distance.")]
CagraDegree = Annotated[int, _number("cagra: links an item.")]
MinRecall = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="Share of the true neighbours that an approximate engine must find on a sample; one that does not is not "
        "used, and the pool stays exact. 0: 0.95.",
    ),
]
GraphOption = Annotated[
    Graph,
    typer.Option(
        "--graph",
        help="Keep neighbours on disk, so that growing a candidate pool is a look-up: lazy keeps those that were asked "
        "for, full finds every item's in the background.",
    ),
]
GraphNeighbors = Annotated[
    int,
    typer.Option(
        min=0, max=UINT32_MAX, help="Neighbours kept for an item; for a larger k the index is searched. 0: 100."
    ),
]
FromLance = Annotated[
    str,
    typer.Option(
        metavar="URI",
        help="Open this data set, read-only: a path below one of the server's source_roots, or an object store URL.",
        rich_help_panel=_SOURCE,
    ),
]


def _column(what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(metavar="COLUMN", help=what, rich_help_panel=_SOURCE)
    return option


IdColumn = Annotated[str, _column("Ids: strings or integers. Default: id.")]
VectorColumn = Annotated[str, _column("Vectors: fixed-size lists of float32 or float16. Default: vector.")]
TextColumn = Annotated[str, _column("Texts. Default: none.")]
UriColumn = Annotated[str, _column("Where items lie. Default: none.")]
MetadataColumn = Annotated[str, _column("Metadata: JSON objects as strings. Default: none.")]


def pool_spec(
    name: str, metric: Metric, dtype: DType, engine: Engine, device: Device, *, dimension: int = 0
) -> index_pb2.PoolSpec:
    """Return the spec with what every new pool is told."""
    return index_pb2.PoolSpec(
        name=name,
        dimension=dimension,
        metric=index_pb2.Metric.Value(f"METRIC_{metric.name}"),
        dtype=common_pb2.DType.Value(f"DTYPE_{dtype.name}"),
        engine=engine.value,
        device=device.value,
    )


def neighbor_graph(kind: Graph, neighbors: int) -> index_pb2.NeighborGraph:
    """Return the part of the spec that says which neighbours are kept.

    Raises
    ------
    typer.BadParameter
        A number of neighbours, and no graph.
    """
    if neighbors and kind is Graph.NONE:
        raise typer.BadParameter("--graph-neighbors needs --graph lazy or --graph full")
    return index_pb2.NeighborGraph(
        kind=index_pb2.NeighborGraphKind.Value(f"NEIGHBOR_GRAPH_KIND_{kind.name}"), neighbors=neighbors
    )


def lance_source(uri: str, **columns: str) -> index_pb2.LanceSource | None:
    """Return the data set that a pool is opened from, None where there is none.

    Raises
    ------
    typer.BadParameter
        Columns, and no data set.
    """
    named = [name for name, column in columns.items() if column]
    if not uri and named:
        raise typer.BadParameter(f"--{named[0].replace('_', '-')} needs --from-lance")
    return index_pb2.LanceSource(uri=uri, **columns) if uri else None
