"""Parts: Parquet files with one row an item."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sealpool.durable import sync_directory, sync_file
from sealpool.errors import FailedPrecondition
from sealpool.rest.deciding import By, Decisions, decide, names_of
from sealpool.rest.manifest import Manifest, Part
from sealpool.rest.people import GivenLabels
from sealpool.rest.scoring import Scored
from sealpool.types import ItemId

SYNTHETIC = "synthetic:"
"""What the ids of made items begin with."""

ORACLE = "oracle"
"""The source of a label that people, or whatever the campaign's oracle is, gave."""


def part_name(number: int) -> str:
    """Return the file name of a part."""
    return f"part-{number:05}.parquet"


def schema_of(manifest: Manifest) -> pa.Schema:
    """Return the columns of a part."""
    several = manifest.task == "multilabel"
    probabilities = pa.list_(pa.float32())
    fields = [
        ("id", pa.string()),
        ("labels", pa.list_(pa.string()) if several else pa.string()),
        ("confidence", pa.float32()),
        ("source", pa.string()),
        ("probabilities", probabilities),
    ]
    if manifest.request.by is By.BOTH:
        fields.append(("propagated", probabilities))
    if manifest.request.by is not By.MODEL:
        fields.append(("mass", pa.float32()))
    fields += [("round", pa.uint32()), ("pool_version", pa.uint64())]
    return pa.schema(fields)


def to_table(manifest: Manifest, given: GivenLabels, scored: Scored) -> pa.Table:
    """Return the rows of some items; synthetic ones have none."""
    real = np.array([not item_id.startswith(SYNTHETIC) for item_id in scored.ids], np.bool_)
    scored = _only(scored, real) if not real.all() else scored
    decisions = decide(manifest.rule, model=scored.model, propagated=scored.propagated, mass=scored.mass)
    labels, confidence, source = _labels(manifest, given, scored.ids, decisions)
    columns: dict[str, object] = {
        "id": pa.array(scored.ids, pa.string()),
        "labels": labels,
        "confidence": pa.array(confidence, pa.float32()),
        "source": source,
        "probabilities": _lists(scored.model if scored.model is not None else scored.propagated),
        "propagated": _lists(scored.propagated),
        "mass": None if scored.mass is None else pa.array(scored.mass, pa.float32()),
        "round": pa.array([scored.round] * len(scored), pa.uint32()),
        "pool_version": pa.array([scored.pool_version] * len(scored), pa.uint64()),
    }
    schema = schema_of(manifest)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def write_part(directory: Path, number: int, tables: Sequence[pa.Table]) -> Part:
    """Write a part; it stands under its name once it is whole and on disk."""
    table = pa.concat_tables(tables)
    path = directory / part_name(number)
    temporary = path.with_name(f".{path.name}.new")
    pq.write_table(table, temporary, compression="zstd")
    sync_file(temporary)
    temporary.replace(path)
    sync_directory(directory)
    people = sum(one == ORACLE for one in table.column("source").to_pylist())
    given = table.num_rows - table.column("source").null_count
    return Part(file=path.name, rows=table.num_rows, labelled=given - people, by_people=people)


def read_parts(directory: Path, manifest: Manifest) -> Iterator[pa.Table]:
    """Yield what the parts hold, in pieces.

    Raises
    ------
    FailedPrecondition
        A part is not there, or cannot be read.
    """
    for part in manifest.parts:
        try:
            with pq.ParquetFile(directory / part.file) as file:
                for batch in file.iter_batches(batch_size=20_000):
                    yield pa.Table.from_batches([batch])
        except (OSError, pa.ArrowException) as error:
            raise FailedPrecondition(f"{directory / part.file} cannot be read: {error}") from error


def decisions_in(manifest: Manifest, table: pa.Table) -> Decisions:
    """Decide again on the items of a part: also on those that people labelled, as if they had not."""
    classes = len(manifest.classes)
    first = _matrix(table.column("probabilities"), classes)
    by = manifest.request.by
    propagated = _matrix(table.column("propagated"), classes) if by is By.BOTH else first
    mass = None if by is By.MODEL else table.column("mass").to_numpy()
    return decide(manifest.rule, model=first, propagated=propagated, mass=mass)


def _labels(
    manifest: Manifest, given: GivenLabels, ids: Sequence[ItemId], decisions: Decisions
) -> tuple[pa.Array, NDArray[np.float32], pa.Array]:
    several = manifest.task == "multilabel"
    by = str(manifest.request.by)
    found = names_of(decisions.labels, manifest.classes)
    labels: list[object] = []
    sources: list[str | None] = []
    confidence = decisions.confidence.copy()
    for row, item_id in enumerate(ids):
        said = given.of(item_id)
        if said is not None:
            confidence[row] = 1
            names, source = list(said), ORACLE
        elif decisions.given[row]:
            names, source = found[row], str(By.MODEL) if decisions.by_model[row] else by
        else:
            labels.append(None)
            sources.append(None)
            continue
        labels.append(names if several else names[0])
        sources.append(source)
    kind = pa.list_(pa.string()) if several else pa.string()
    return pa.array(labels, kind), confidence, pa.array(sources, pa.string())


def _only(scored: Scored, rows: NDArray[np.bool_]) -> Scored:
    return Scored(
        ids=[item_id for item_id, kept in zip(scored.ids, rows.tolist(), strict=True) if kept],
        model=None if scored.model is None else scored.model[rows],
        propagated=None if scored.propagated is None else scored.propagated[rows],
        mass=None if scored.mass is None else scored.mass[rows],
        round=scored.round,
        pool_version=scored.pool_version,
    )


def _lists(values: NDArray[np.float32] | None) -> pa.Array | None:
    if values is None:
        return None
    ends = np.arange(len(values) + 1, dtype=np.int32) * np.int32(values.shape[1])
    return pa.ListArray.from_arrays(ends, np.ascontiguousarray(values, np.float32).ravel())


def _matrix(column: pa.ChunkedArray, classes: int) -> NDArray[np.float32]:
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(-1, classes)
