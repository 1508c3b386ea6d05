"""`sealpool pool …`."""

from typing import Annotated

import typer

from sealpool.cli import pool_candidates, pool_copies, pool_ingest, pool_reembed
from sealpool.cli.options import INDEX, AsJson, Index, PoolName, index_client
from sealpool.cli.output import answer_json, count, facts, plain, quality, say, share, size, table
from sealpool.cli.pool_spec import (
    CagraDegree,
    Device,
    DeviceOption,
    DType,
    DTypeOption,
    Engine,
    EngineOption,
    FromLance,
    Graph,
    GraphNeighbors,
    GraphOption,
    HnswEfConstruction,
    HnswEfSearch,
    HnswNeighbors,
    IdColumn,
    IvfLists,
    IvfProbes,
    LshBits,
    MetadataColumn,
    Metric,
    MetricOption,
    MinRecall,
    PqSubquantizers,
    RefineFactor,
    TextColumn,
    UriColumn,
    VectorColumn,
    lance_source,
    neighbor_graph,
    pool_spec,
)
from sealpool.errors import Cancelled, FailedPrecondition
from sealpool.v1 import index_pb2

app = typer.Typer(help="Pools: the items, their vectors, their index.", no_args_is_help=True)
app.command()(pool_ingest.ingest)
pool_copies.register(app)
pool_candidates.register(app)
pool_reembed.register(app)


@app.command()
def create(
    name: PoolName,
    *,
    dimension: Annotated[int, typer.Option(min=1, max=65_536, help="Numbers in a vector.", show_default=False)],
    metric: MetricOption = Metric.COSINE,
    dtype: DTypeOption = DType.FLOAT32,
    engine: EngineOption = Engine.AUTO,
    device: DeviceOption = Device.AUTO,
    min_recall: MinRecall = 0.0,
    graph: GraphOption = Graph.NONE,
    graph_neighbors: GraphNeighbors = 0,
    ivf_lists: IvfLists = 0,
    ivf_probes: IvfProbes = 0,
    hnsw_neighbors: HnswNeighbors = 0,
    hnsw_ef_construction: HnswEfConstruction = 0,
    hnsw_ef_search: HnswEfSearch = 0,
    pq_subquantizers: PqSubquantizers = 0,
    lsh_bits: LshBits = 0,
    refine_factor: RefineFactor = 0,
    cagra_degree: CagraDegree = 0,
    from_lance: FromLance = "",
    id_column: IdColumn = "",
    vector_column: VectorColumn = "",
    text_column: TextColumn = "",
    uri_column: UriColumn = "",
    metadata_column: MetadataColumn = "",
    index: Index = INDEX,
    as_json: AsJson = False,
) -> None:
    """Make an empty pool, or open a Lance data set as one.

    Examples: `sealpool pool create products --dimension 384`,
    `sealpool pool create web --dimension 768 --from-lance /data/web.lance --id-column url --text-column title`
    """
    spec = pool_spec(name, metric, dtype, engine, device, dimension=dimension)
    spec.min_recall = min_recall
    spec.neighbor_graph.CopyFrom(neighbor_graph(graph, graph_neighbors))
    spec.options.CopyFrom(
        index_pb2.EngineOptions(
            ivf_lists=ivf_lists,
            ivf_probes=ivf_probes,
            hnsw_neighbors=hnsw_neighbors,
            hnsw_ef_construction=hnsw_ef_construction,
            hnsw_ef_search=hnsw_ef_search,
            pq_subquantizers=pq_subquantizers,
            lsh_bits=lsh_bits,
            refine_factor=refine_factor,
            cagra_degree=cagra_degree,
        )
    )
    source = lance_source(
        from_lance,
        id_column=id_column,
        vector_column=vector_column,
        text_column=text_column,
        uri_column=uri_column,
        metadata_column=metadata_column,
    )
    if source is not None:
        spec.source.CopyFrom(source)
    with index_client(index) as client:
        pool = client.create_pool(spec)
    if as_json:
        answer_json(plain(pool))
        return
    items = f", {count(pool.size)} items of {from_lance}, read-only" if source else ""
    say(f"made pool {name}: dimension {dimension}, {metric.value}, engine {pool.engine or engine.value}{items}")


@app.command()
def show(name: PoolName, *, index: Index = INDEX, as_json: AsJson = False) -> None:
    """Show one pool: size, index, campaigns."""
    with index_client(index) as client:
        pool = client.get_pool(name)
    answer = plain(pool)
    if as_json:
        answer_json(answer)
        return
    spec = plain(pool.spec)
    source = f"Lance data set {pool.spec.source.uri}" if pool.spec.HasField("source") else ""
    pairs = {
        **({"opened from": source} if source else {}),
        "items": count(pool.size) + (" (read-only)" if pool.read_only else ""),
        "dimension": count(pool.spec.dimension),
        "metric": _metric_word(pool),
        "stored as": str(spec["dtype"] or "float32"),
        "engine": f"{pool.engine} on {pool.device}" + (f" ({pool.engine_reason})" if pool.engine_reason else ""),
        "recall": _recall(pool),
        "building": pool.building or "nothing",
        "neighbour graph": _graph(pool),
        "index memory": size(pool.index_bytes),
        "state": str(answer["state"]) + (f", {share(pool.loaded_share)} read" if _is_loading(pool) else ""),
        "version": count(pool.version),
        "made": str(answer["created_at"])[:19] + " UTC",
        "aliases": ", ".join(pool.aliases) or "none",
        "campaigns": ", ".join(pool.campaigns) or "none",
    }
    say(facts(f"pool {name}", pairs))


@app.command("list")
def list_(*, index: Index = INDEX, as_json: AsJson = False) -> None:
    """List all pools."""
    with index_client(index) as client:
        pools = client.list_pools()
    if as_json:
        answer_json({"pools": [plain(pool) for pool in pools]})
        return
    if not pools:
        say("no pools yet; `sealpool pool ingest NAME FILE --create` makes one")
        return
    rows = [
        (
            pool.spec.name,
            "–" if _is_loading(pool) else count(pool.size),
            count(pool.spec.dimension),
            _metric_word(pool),
            "loading" if _is_loading(pool) else f"{pool.engine} on {pool.device}",
            size(pool.index_bytes),
            str(plain(pool)["state"]),
            count(len(pool.campaigns)),
        )
        for pool in pools
    ]
    say(table("", ["pool", ">items", ">dimension", "metric", "engine", ">index", "state", ">campaigns"], rows))


@app.command()
def delete(
    name: PoolName,
    *,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask; needed where campaigns pick from the pool.")
    ] = False,
    index: Index = INDEX,
    as_json: AsJson = False,
) -> None:
    """Delete a pool with its items and candidate pools. Not to be undone."""
    with index_client(index) as client:
        pool = client.get_pool(name)
        if pool.campaigns and not yes:
            names = ", ".join(pool.campaigns)
            raise FailedPrecondition(f"{name} is the pool of campaigns {names}; --yes deletes it nevertheless")
        if not yes and not typer.confirm(f"Delete {name} with its {count(pool.size)} items?", err=True):
            raise Cancelled("nothing was deleted")
        answer = client.delete_pool(name)
    if as_json:
        answer_json({"pool": name, "deleted_items": answer.size, "pool_version": answer.pool_version})
    else:
        say(f"deleted {name} with its {count(answer.size)} items")


def _is_loading(pool: index_pb2.Pool) -> bool:
    return pool.state == index_pb2.POOL_STATE_LOADING


def _metric_word(pool: index_pb2.Pool) -> str:
    word = str(plain(pool.spec)["metric"])
    return "cosine" if word == "unspecified" else word


def _recall(pool: index_pb2.Pool) -> str:
    if pool.engine == "flat":
        return "exact"
    return f"{quality(pool.recall)} of the true 100 neighbours found" if pool.recall else "not measured yet"


def _graph(pool: index_pb2.Pool) -> str:
    kind = index_pb2.NeighborGraphKind.Name(pool.spec.neighbor_graph.kind).rpartition("_")[2].lower()
    if kind in ("unspecified", "none"):
        return "none"
    return f"{kind}, of {count(pool.graph_items)} items"
