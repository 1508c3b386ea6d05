"""`sealpool pool ingest`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sealpool.cli.ingest import Ingest, IngestTotals, embedder
from sealpool.cli.options import INDEX, LEARNER, AsJson, Index, Learner, PoolName, index_client, learner_client
from sealpool.cli.output import answer_json, count, note, say
from sealpool.cli.pool_spec import (
    Device,
    DeviceOption,
    DType,
    DTypeOption,
    Engine,
    EngineOption,
    Metric,
    MetricOption,
    pool_spec,
)
from sealpool.cli.progress import file_progress
from sealpool.errors import SealpoolError
from sealpool.types import Vectors
from sealpool.v1 import index_pb2


class Pooling(StrEnum):
    """How an encoder's token vectors become one."""

    MEAN = "mean"
    CLS = "cls"


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
    spec = pool_spec(name, metric, dtype, engine, device) if make else None
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
        pool = work.pool_now()
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
