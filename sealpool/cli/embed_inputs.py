"""What `sealpool embed` reads: a file of items with texts, or a directory of images."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sealpool.cli.records import Record, bad_row, missing, read_chunks
from sealpool.errors import InvalidArgument
from sealpool.validation import MAX_ID_BYTES

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_INT64 = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedInput:
    """An input that was read once.

    Parameters
    ----------
    rows
        How many items it holds.
    digest
        Of its content: another one means another input. Of a directory, of its files' names, sizes and times.
    columns
        What is carried beside id and vector: names, with "string", "strings" (a list), "bool", "int64", "float64", or
        "json" for what is none of these in every row.
    images
        Paths in the order of the rows; None for a file of texts.
    """

    path: Path
    rows: int
    digest: str
    columns: Mapping[str, str]
    images: Sequence[Path] | None = None

    def portions(self, size: int, *, skip: int) -> Iterator[list[Record]]:
        """Yield the items in lists of `size`, without the first `skip` items."""
        records = islice(self._records(), skip, None)
        while portion := list(islice(records, size)):
            yield portion

    def contents(self, records: Sequence[Record]) -> Iterator[str | bytes]:
        """Yield what is embedded of some items: texts, or the bytes of image files, read as they are asked for."""
        for record in records:
            yield record.text if self.images is None else (self.path / record.uri).read_bytes()

    def _records(self) -> Iterator[Record]:
        if self.images is None:
            for chunk in read_chunks(self.path, vectors=False):
                yield from chunk.records
        else:
            for line, image in enumerate(self.images, 1):
                name = image.relative_to(self.path).as_posix()
                yield Record(line=line, id=name, uri=name)


def look_through(path: Path) -> EmbedInput:
    """Read an input once, so that what is wrong with it is found before anything is embedded.

    Raises
    ------
    InvalidArgument
        An unknown kind of file, a bad row, an id that comes twice, a text that is missing, no item at all; the message
        has file, line and field.
    """
    if path.is_dir():
        return _look_through_images(path)
    kinds: dict[str, str] = {}
    lines: dict[str, int] = {}
    for chunk in read_chunks(path, vectors=False):
        for record in chunk.records:
            before = lines.setdefault(record.id, record.line)
            if before != record.line:
                raise bad_row(path, record.line, "id", f"{record.id!r} is on line {before} already")
            if not record.text.strip():
                raise bad_row(path, record.line, "text", f"{missing(path, 'text')}: there is nothing to embed")
            for name, value in carried(record).items():
                kinds[name] = _common(kinds.get(name), _kind(value))
    if not lines:
        raise InvalidArgument(path.name, "holds no items")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    columns = {name: kind or "string" for name, kind in kinds.items()}
    return EmbedInput(path=path, rows=len(lines), digest=digest, columns=columns)


def carried(record: Record) -> dict[str, object]:
    """Return what an item brings along beside its id and its vector."""
    own = {name: value for name, value in (("text", record.text), ("uri", record.uri)) if value}
    return own | dict(record.metadata)


def as_kind(value: object, kind: str) -> object:
    """Return a value as its column holds it."""
    if value is None or kind != "json":
        return float(value) if kind == "float64" and isinstance(value, int) else value
    return json.dumps(value, ensure_ascii=False)


def _look_through_images(path: Path) -> EmbedInput:
    digest = hashlib.sha256()
    images = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    for image in images:
        name, state = image.relative_to(path).as_posix(), image.stat()
        if len(name.encode()) > MAX_ID_BYTES:
            raise InvalidArgument(name, f"has over {MAX_ID_BYTES} bytes, and is to be an id")
        digest.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    if not images:
        raise InvalidArgument(str(path), f"holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return EmbedInput(path=path, rows=len(images), digest=digest.hexdigest(), columns={"uri": "string"}, images=images)


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if value in _INT64 else "json"
    if isinstance(value, float):
        return "float64"
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "strings"
    return {str: "string", type(None): ""}.get(type(value), "json")


def _common(before: str | None, now: str) -> str:
    """Return the kind of a column that held `before` and now holds `now`; "" is null, which fits everywhere."""
    if not before or not now or before == now:
        return now or before or ""
    return "float64" if {before, now} == {"int64", "float64"} else "json"
