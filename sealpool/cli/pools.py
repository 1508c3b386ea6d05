"""`sealpool pool …`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sealpool.cli.ingest import Ingest, IngestTotals, embedder
from sealpool.cli.options import INDEX, LEARNER, AsJson, Index, Learner, index_client, learner_client
from sealpool.cli.output import answer_json, count, facts, note, plain, say, size, table
from sealpool.cli.progress import file_progress
from sealpool.errors import Cancelled, FailedPrecondition, SealpoolError
from sealpool.types import Vectors
from sealpool.v1 import common_pb2, index_pb2

app = typer.Typer(help="Pools: the items, their vectors, their index.", no_args_is_help=True)


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
    HNSW = "hnsw"


class Device(StrEnum):
    """Where neighbours are found."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Pooling(StrEnum):
    """How an encoder's token vectors become one."""

    MEAN = "mean"
    CLS = "cls"


PoolName = Annotated[str, typer.Argument(metavar="POOL", help="Name of the pool.", show_default=False)]
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
        "auto chooses by size.",
    ),
]
DeviceOption = Annotated[
    Device, typer.Option("--device", help="Where neighbours are found; auto takes a GPU where FAISS finds one.")
]


@app.command()
def create(
    name: PoolName,
    *,
    dimension: Annotated[int, typer.Option(min=1, max=65_536, help="Numbers in a vector.", show_default=False)],
    metric: MetricOption = Metric.COSINE,
    dtype: DTypeOption = DType.FLOAT32,
    engine: EngineOption = Engine.AUTO,
    device: DeviceOption = Device.AUTO,
    index: Index = INDEX,
    as_json: AsJson = False,
) -> None:
    """Make an empty pool.

    Example: `sealpool pool create products --dimension 384`
    """
    with index_client(index) as client:
        pool = client.create_pool(_spec(name, metric, dtype, engine, device, dimension=dimension))
    if as_json:
        answer_json(plain(pool))
    else:
        say(f"made pool {name}: dimension {dimension}, {metric.value}, engine {pool.engine or engine.value}")


@app.command()
def ingest(
    name: PoolName,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="JSON Lines (.jsonl, .jsonl.gz), CSV (.csv, .csv.gz) or Parquet with columns id, text, uri, labels, "
            "split, vector; further columns become metadata.",
            show_default=False,
        ),
    ],
    *,
    vectors: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npy",
            exists=True,
            dir_okay=False,
            help="Vectors beside the file: one row an item, in its order.",
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--embedder",
            metavar="NAME",
            help="Let the learner turn texts into vectors with this Hugging Face encoder: a directory on the "
            "learner's machine, or a model name that its cache has.",
        ),
    ] = None,
    pooling: Annotated[
        Pooling, typer.Option(help="With --embedder: mean of the tokens, or the first one.")
    ] = Pooling.MEAN,
    make: Annotated[bool, typer.Option("--create", help="Make the pool if it does not exist.")] = False,
    metric: MetricOption = Metric.COSINE,
    dtype: DTypeOption = DType.FLOAT32,
    engine: EngineOption = Engine.AUTO,
    device: DeviceOption = Device.AUTO,
    batch_items: Annotated[
        int,
        typer.Option(
            min=1,
            max=1_000_000,
            help="Items in one upload, which is applied whole or not at all. More is faster and takes more memory.",
        ),
    ] = 10_000,
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing",
            help="Neither embed nor upload rows whose id the pool has already: an ingest that was interrupted goes on "
            "where it was. Rows that changed since are not noticed.",
        ),
    ] = False,
    index: Index = INDEX,
    learner: Learner = LEARNER,
    as_json: AsJson = False,
) -> None:
    """Put the items of a file into a pool; items that it has already are replaced.

    Vectors come from a column `vector`, from a .npy file beside it, or from the learner. If it is interrupted, run it
    again: what was uploaded is replaced by itself, or left alone with --skip-existing. While the index server is away,
    uploads wait for it for up to 30 s.

    Examples: `sealpool pool ingest news news.jsonl.gz --create --embedder sentence-transformers/all-MiniLM-L6-v2`,
    `sealpool pool ingest images images.csv --vectors images.npy --create`
    """
    if vectors is not None and encoder is not None:
        raise typer.BadParameter("give --vectors or --embedder, not both")
    spec = _spec(name, metric, dtype, engine, device) if make else None
    with ExitStack() as stack:
        client = stack.enter_context(index_client(index))
        embed: Callable[[Sequence[str]], Iterator[Vectors]] | None = None
        if encoder is not None:
            embed = embedder(stack.enter_context(learner_client(learner)), encoder, pooling=pooling.value)
        on_progress = stack.enter_context(file_progress(f"{file.name} → {name}"))
        work = Ingest(
            index=client,
            pool=name,
            path=file,
            batch_items=batch_items,
            vectors=vectors,
            embed=embed,
            create=spec,
            skip_existing=skip_existing,
            on_progress=on_progress,
        )
        found = work.check()
        try:
            totals = work.run(found)
        except (SealpoolError, KeyboardInterrupt):
            note(
                f"{count(work.totals.items)} rows of {file.name} are in {name}; the same command may be repeated, and "
                "with --skip-existing it goes on where it was"
            )
            raise
        pool = client.get_pool(name)
    _answer_ingest(name, totals, pool, as_json)


def _answer_ingest(name: str, totals: IngestTotals, pool: index_pb2.Pool, as_json: bool) -> None:
    if as_json:
        answer_json(
            {
                "pool": name,
                "created": totals.created,
                "items": totals.items,
                "inserted": totals.inserted,
                "replaced": totals.replaced,
                "skipped": totals.skipped,
                "batches": totals.batches,
                "pool_version": totals.pool_version,
                "size": pool.size,
            }
        )
        return
    skipped = f", {count(totals.skipped)} skipped" if totals.skipped else ""
    say(
        f"{count(totals.items)} items into {name}: {count(totals.inserted)} new, {count(totals.replaced)} replaced"
        f"{skipped}; the pool holds {count(pool.size)}"
    )


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
    pairs = {
        "items": count(pool.size),
        "dimension": count(pool.spec.dimension),
        "metric": _metric_word(pool),
        "stored as": str(spec["dtype"] or "float32"),
        "engine": f"{pool.engine} on {pool.device}" + (f" ({pool.engine_reason})" if pool.engine_reason else ""),
        "index memory": size(pool.index_bytes),
        "state": str(answer["state"]),
        "version": count(pool.version),
        "made": str(answer["created_at"])[:19] + " UTC",
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


def _spec(
    name: str, metric: Metric, dtype: DType, engine: Engine, device: Device, *, dimension: int = 0
) -> index_pb2.PoolSpec:
    return index_pb2.PoolSpec(
        name=name,
        dimension=dimension,
        metric=index_pb2.Metric.Value(f"METRIC_{metric.name}"),
        dtype=common_pb2.DType.Value(f"DTYPE_{dtype.name}"),
        engine=engine.value,
        device=device.value,
    )


def _is_loading(pool: index_pb2.Pool) -> bool:
    return pool.state == index_pb2.POOL_STATE_LOADING


def _metric_word(pool: index_pb2.Pool) -> str:
    word = str(plain(pool.spec)["metric"])
    return "cosine" if word == "unspecified" else word
