"""A file read once before anything is embedded or uploaded: what can be wrong at little cost is found first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sealpool.cli.records import bad_row, missing, read_chunks
from sealpool.errors import InvalidArgument


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What a file holds: its rows, and the ids among them that the pool has already and that are to be left out."""

    rows: int
    skipped: frozenset[str]


def survey(path: Path, *, texts: bool, in_pool: Callable[[Sequence[str]], Sequence[str]]) -> Survey:
    """Read a file's ids.

    Parameters
    ----------
    texts
        Whether each row needs a text, to be embedded.
    in_pool
        Returns which of some ids are to be left out.

    Raises
    ------
    InvalidArgument
        A bad row, an id that comes twice, a text that is missing, or no row at all.
    """
    lines: dict[str, int] = {}
    without_text: dict[str, int] = {}
    for chunk in read_chunks(path, vectors=False):
        for record in chunk.records:
            before = lines.setdefault(record.id, record.line)
            if before != record.line:
                raise bad_row(path, record.line, "id", f"{record.id!r} is on line {before} already")
            if texts and not record.text.strip():
                without_text[record.id] = record.line
    if not lines:
        raise InvalidArgument(path.name, "holds no items")
    skipped = frozenset(in_pool(list(lines)))
    _check_texts(path, without_text, skipped)
    return Survey(rows=len(lines), skipped=skipped)


def _check_texts(path: Path, without_text: Mapping[str, int], skipped: frozenset[str]) -> None:
    line = next((line for item_id, line in without_text.items() if item_id not in skipped), None)
    if line is not None:
        problem = missing(path, "text")
        raise bad_row(path, line, "text", f"{problem}: there is nothing to embed")


def check_vector_column(path: Path, dimension: int | None) -> None:
    """Raise InvalidArgument if a file's first row has no vector, or one that does not fit a pool's `dimension`."""
    first = next(iter(read_chunks(path, chunk_rows=1)))
    if first.vectors is None:
        raise bad_row(path, first.records[0].line, "vector", "is missing; give --vectors FILE.npy or --embedder NAME")
    if dimension is not None and first.vectors.shape[1] != dimension:
        problem = f"has dimension {first.vectors.shape[1]}; the pool has {dimension}"
        raise bad_row(path, first.records[0].line, "vector", problem)
