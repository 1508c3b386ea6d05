"""Items read from files: JSON Lines (plain or .gz), CSV (plain or .gz) and Parquet.

Columns: `id` (text or whole number, required), `text`, `uri`, `labels` (one, or a list; in CSV a list is written as
JSON), `split`, `vector` (numbers). Every further column goes into the item's metadata, as do `labels` and `split`.
"""

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sealpool.cli.options import need
from sealpool.errors import InvalidArgument
from sealpool.types import Vectors
from sealpool.validation import MAX_ID_BYTES, MAX_METADATA_BYTES, MAX_TEXT_BYTES, MAX_URI_BYTES

CHUNK_ROWS = 1_000

_FORMATS = "JSON Lines (.jsonl, .jsonl.gz), CSV (.csv, .csv.gz) or Parquet (.parquet)"
_PARQUET = ("parquet", "pq")
_OWN_COLUMNS = {"id", "text", "uri", "vector"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One item of a file.

    `line` counts from 1; in Parquet it is the row. `labels` is None where the row has no such field.
    """

    line: int
    id: str
    text: str = ""
    uri: str = ""
    labels: tuple[str, ...] | None = None
    split: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Some records in the order of the file.

    `vectors` (n, d) float32 is parallel to them, or None where the file has none. `share_read` is how much of the
    file has been read so far, 0 to 1.
    """

    records: Sequence[Record]
    vectors: Vectors | None
    share_read: float


def read_chunks(path: Path, *, chunk_rows: int = CHUNK_ROWS, vectors: bool = True) -> Iterator[Chunk]:
    """Yield the records of a file; a column `vector` is left unread without `vectors`.

    Raises
    ------
    InvalidArgument
        An unknown kind of file, or a bad row; the message has file, line and field.
    """
    kind = _kind_of(path)
    if not path.is_file():
        raise InvalidArgument(str(path), "no such file")
    if kind in _PARQUET:
        rows = _parquet_rows(path, chunk_rows, vectors=vectors)
    elif kind in ("jsonl", "ndjson", "json"):
        rows = _text_rows(path, _json_rows, chunk_rows)
    elif kind == "csv":
        rows = _text_rows(path, _csv_rows, chunk_rows)
    else:
        raise InvalidArgument(path.name, f"is not {_FORMATS}")
    return _chunks(path, rows, vectors=vectors)


def bad_row(path: Path, line: int, name: str, problem: str) -> InvalidArgument:
    """Return the error that names file, line and field."""
    return InvalidArgument(f"{path.name}:{line}: {name}", problem)


def missing(path: Path, name: str) -> str:
    """Return what to say of a field that a row lacks: if no row has it, with the columns that there are."""
    columns = _columns(path)
    return "is missing" if name in columns else f"there is no such column among {', '.join(columns)}"


def _columns(path: Path) -> list[str]:
    """Return the names in the header or schema; in JSON Lines, those of the first line."""
    kind = _kind_of(path)
    if kind in _PARQUET:
        return list(need("pyarrow.parquet", extra="cli").read_schema(path).names)
    with path.open("rb") as raw, _unpacked(path, raw) as unpacked:
        text = io.TextIOWrapper(unpacked, encoding="utf-8-sig", newline="")
        if kind == "csv":
            return list(csv.DictReader(text).fieldnames or ())
        return list(next(_json_rows(path, text), (0, {}))[1])


_Row = tuple[int, Mapping[str, object]]
_Parser = Callable[[Path, io.TextIOWrapper], Iterator[_Row]]


def _chunks(
    path: Path, groups: Iterator[tuple[list[_Row], Vectors | None, float]], *, vectors: bool
) -> Iterator[Chunk]:
    dimension: int | None = None
    for rows, found, share_read in groups:
        records = [_record(path, line, row) for line, row in rows]
        if vectors and found is None and any("vector" in row for _, row in rows):
            found = _stack(path, rows)
        if found is not None:
            dimension = dimension or found.shape[1]
            check_rows(path, records, found, dimension=dimension)
        yield Chunk(records=records, vectors=found, share_read=share_read)


def check_rows(path: Path, records: Sequence[Record], vectors: Vectors, *, dimension: int) -> None:
    """Raise InvalidArgument for the first record whose vector is of another dimension, NaN or infinite."""
    if vectors.shape[1] != dimension:
        raise bad_row(path, records[0].line, "vector", f"has dimension {vectors.shape[1]}, not {dimension}")
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise bad_row(path, records[bad[0]].line, "vector", "holds NaN or infinity")


def _record(path: Path, line: int, row: Mapping[str, object]) -> Record:
    item_id = row.get("id")
    if isinstance(item_id, int) and not isinstance(item_id, bool):
        item_id = str(item_id)
    if not isinstance(item_id, str) or not item_id or len(item_id.encode()) > MAX_ID_BYTES:
        problem = f"is not a text of 1 to {MAX_ID_BYTES} bytes or a whole number" if "id" in row else "is missing"
        raise bad_row(path, line, "id", problem)
    labels = _labels(path, line, row["labels"]) if row.get("labels") is not None else None
    metadata = {name: _json_value(value) for name, value in row.items() if name not in _OWN_COLUMNS}
    if labels is not None:
        metadata["labels"] = list(labels)
    _check_metadata(path, line, metadata)
    return Record(
        line=line,
        id=item_id,
        text=_text(path, line, "text", row, MAX_TEXT_BYTES),
        uri=_text(path, line, "uri", row, MAX_URI_BYTES),
        labels=labels,
        split=_text(path, line, "split", row, MAX_ID_BYTES),
        metadata=metadata,
    )


def _text(path: Path, line: int, name: str, row: Mapping[str, object], limit: int) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise bad_row(path, line, name, f"is {_kind(value)}, not a text")
    if len(value.encode()) > limit:
        raise bad_row(path, line, name, f"has over {limit:,} bytes")
    return value


def _labels(path: Path, line: int, value: object) -> tuple[str, ...]:
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise bad_row(path, line, "labels", "begins as a JSON list and is none") from error
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    labels = [value] if isinstance(value, str) else value
    if not isinstance(labels, (list, tuple)):
        raise bad_row(path, line, "labels", f"is {_kind(value)}, not a text or a list of texts")
    names = [str(label) if isinstance(label, int) and not isinstance(label, bool) else label for label in labels]
    for label in names:
        if not isinstance(label, str) or not label:
            raise bad_row(path, line, "labels", "holds something that is not a text, or empty")
    if len(set(names)) < len(names):
        raise bad_row(path, line, "labels", "names a label twice")
    return tuple(names)


def _stack(path: Path, rows: Sequence[_Row]) -> Vectors:
    vectors: list[NDArray[np.float32]] = []
    for line, row in rows:
        vector = _vector(path, line, row.get("vector"))
        if vectors and len(vector) != len(vectors[0]):
            raise bad_row(path, line, "vector", f"has dimension {len(vector)}, not {len(vectors[0])}")
        vectors.append(vector)
    return np.stack(vectors)


def _vector(path: Path, line: int, value: object) -> NDArray[np.float32]:
    try:
        vector = np.asarray(json.loads(value) if isinstance(value, str) else value, np.float32)
    except (TypeError, ValueError) as error:
        raise bad_row(path, line, "vector", "is not a list of numbers") from error
    if vector.ndim != 1 or not len(vector):
        raise bad_row(path, line, "vector", "is missing" if value is None else "is not a list of numbers")
    return vector


def _check_metadata(path: Path, line: int, metadata: Mapping[str, object]) -> None:
    try:
        size = len(json.dumps(metadata, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise bad_row(path, line, "metadata", f"cannot be written as JSON: {error}") from error
    if size > MAX_METADATA_BYTES:
        raise bad_row(path, line, "metadata", f"all further columns together have over {MAX_METADATA_BYTES:,} bytes")


def _json_value(value: object) -> object:
    """Return a value that JSON can hold: Parquet has dates, decimals and NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str, list, dict)):
        return value
    return str(value)


def _kind(value: object) -> str:
    return {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}.get(
        type(value), type(value).__name__
    )


def _kind_of(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").rpartition(".")[2]


def _unpacked(path: Path, raw: IO[bytes]) -> AbstractContextManager[Any]:
    return gzip.GzipFile(fileobj=raw) if path.name.lower().endswith(".gz") else nullcontext(raw)


def _text_rows(path: Path, parse: _Parser, chunk_rows: int) -> Iterator[tuple[list[_Row], Vectors | None, float]]:
    total = max(path.stat().st_size, 1)
    with path.open("rb") as raw, _unpacked(path, raw) as unpacked:
        text = io.TextIOWrapper(unpacked, encoding="utf-8-sig", newline="")
        rows: list[_Row] = []
        try:
            for row in parse(path, text):
                rows.append(row)
                if len(rows) == chunk_rows:
                    yield rows, None, raw.tell() / total
                    rows = []
        except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InvalidArgument(path.name, f"cannot be read as UTF-8 text: {error}") from error
        if rows:
            yield rows, None, 1.0


def _json_rows(path: Path, lines: io.TextIOWrapper) -> Iterator[_Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise bad_row(path, number, "line", f"is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise bad_row(path, number, "line", f"is {_kind(row)}, not a JSON object")
        yield number, row


def _csv_rows(path: Path, lines: io.TextIOWrapper) -> Iterator[_Row]:
    reader = csv.DictReader(lines, strict=True)
    if "id" not in (reader.fieldnames or ()):
        found = ", ".join(reader.fieldnames or ())
        raise bad_row(path, 1, "id", f"the header has no such column; it is {found}")
    try:
        for row in reader:
            if None in row or None in row.values():
                raise bad_row(path, reader.line_num, "line", "has another number of cells than the header")
            yield reader.line_num, {name: value for name, value in row.items() if value != "" or name == "id"}
    except csv.Error as error:
        raise bad_row(path, reader.line_num, "line", f"is not CSV: {error}") from error


def _parquet_rows(path: Path, chunk_rows: int, *, vectors: bool) -> Iterator[tuple[list[_Row], Vectors | None, float]]:
    parquet = need("pyarrow.parquet", extra="cli")
    arrow = need("pyarrow", extra="cli")
    try:
        file = parquet.ParquetFile(path)
    except arrow.ArrowException as error:
        raise InvalidArgument(path.name, f"is not a Parquet file: {error}") from error
    with file:
        total, read = max(file.metadata.num_rows, 1), 0
        if "id" not in file.schema_arrow.names:
            raise bad_row(path, 1, "id", f"there is no such column among {', '.join(file.schema_arrow.names)}")
        columns = None if vectors else [name for name in file.schema_arrow.names if name != "vector"]
        for batch in file.iter_batches(batch_size=chunk_rows, columns=columns):
            found = None
            if "vector" in batch.schema.names:
                found = _arrow_vectors(path, read + 1, batch.column("vector"))
                batch = batch.drop_columns(["vector"])
            rows = list(enumerate(batch.to_pylist(), read + 1))
            read += len(rows)
            yield rows, found, read / total


def _arrow_vectors(path: Path, first: int, column: Any) -> Vectors:
    """Take a list column as (n, d) float32 without a Python object for each number."""
    compute = need("pyarrow.compute", extra="cli")
    if column.null_count:
        raise bad_row(path, first + column.is_null().to_pylist().index(True), "vector", "is missing")
    lengths = compute.list_value_length(column).to_numpy(zero_copy_only=False)
    if len(set(lengths.tolist())) > 1:
        row = int(np.flatnonzero(lengths != lengths[0])[0])
        raise bad_row(path, first + row, "vector", f"has dimension {lengths[row]}, not {lengths[0]}")
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat, np.float32).reshape(len(column), int(lengths[0]))
