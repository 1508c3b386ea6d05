"""What the demo labels: scikit-learn's digits, or the user's own labelled text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sealpool.cli.campaign_spec import Task, resolve_task
from sealpool.cli.options import need
from sealpool.cli.records import Record, bad_row, read_chunks
from sealpool.errors import InvalidArgument
from sealpool.types import Vectors

_DIGITS_HELD_OUT = 0.25
_TEXTS_HELD_OUT = 0.20


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """Items with their true labels, parallel. `vectors` is None until they are embedded."""

    ids: Sequence[str]
    texts: Sequence[str]
    labels: Sequence[Sequence[str]]
    vectors: Vectors | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> "Labelled":
        """Return some of them."""
        return Labelled(
            ids=[self.ids[row] for row in rows],
            texts=[self.texts[row] for row in rows],
            labels=[self.labels[row] for row in rows],
            vectors=None if self.vectors is None else self.vectors[list(rows)],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoData:
    """A pool to label from, items to measure on, and what they are."""

    title: str
    source: str
    pool: Labelled
    held_out: Labelled
    classes: Sequence[str]
    task: Task

    def with_vectors(self, vectors: Vectors) -> "DemoData":
        """Return the same with vectors (pool and held-out items, n, d), the pool's first."""
        return replace(
            self,
            pool=replace(self.pool, vectors=vectors[: len(self.pool)]),
            held_out=replace(self.held_out, vectors=vectors[len(self.pool) :]),
        )


def digits(seed: int) -> DemoData:
    """Return the 1,797 handwritten digits that scikit-learn carries; a quarter is held out by the seed."""
    loaded = need("sklearn.datasets", extra="demo").load_digits()
    everything = Labelled(
        ids=[f"digit-{row:04d}" for row in range(len(loaded.data))],
        texts=[""] * len(loaded.data),
        labels=[[str(label)] for label in loaded.target],
        vectors=np.asarray(loaded.data, np.float32),
    )
    pool, held_out = _split(everything, seed, _DIGITS_HELD_OUT)
    return DemoData(
        title="Handwritten digits",
        source="1,797 real handwritten digits from scikit-learn; the 64 pixels of an image are its vector",
        pool=pool,
        held_out=held_out,
        classes=[str(digit) for digit in range(10)],
        task=Task.MULTICLASS,
    )


def labelled_text(path: Path, seed: int) -> DemoData:
    """Read a user's labelled texts.

    Rows whose `split` is "test" are held out; where no row says so, a fifth of all is, by the seed.

    Raises
    ------
    InvalidArgument
        A row without text or labels, a repeated id, another split than train or test, fewer than two classes.
    """
    records: list[Record] = []
    parts: list[Vectors] = []
    for chunk in read_chunks(path):
        records.extend(chunk.records)
        if chunk.vectors is not None:
            parts.append(chunk.vectors)
    everything = Labelled(
        ids=[record.id for record in records],
        texts=[record.text for record in records],
        labels=[record.labels or () for record in records],
        vectors=np.concatenate(parts) if parts else None,
    )
    classes = sorted({label for labels in everything.labels for label in labels})
    most = max((len(labels) for labels in everything.labels), default=0)
    task = resolve_task(None, classes, most_labels=most)
    _check(path, records, task, has_vectors=bool(parts))
    if len(classes) < 2:
        raise InvalidArgument(path.name, f"holds {len(classes)} classes; a campaign needs two")
    held_out_rows = [row for row, record in enumerate(records) if record.split == "test"]
    if held_out_rows:
        pool_rows = [row for row, record in enumerate(records) if record.split != "test"]
        pool, held_out = everything.take(pool_rows), everything.take(held_out_rows)
    else:
        pool, held_out = _split(everything, seed, _TEXTS_HELD_OUT)
    return DemoData(
        title=path.name,
        source=f"{len(records):,} labelled texts from {path.name}",
        pool=pool,
        held_out=held_out,
        classes=classes,
        task=task,
    )


def _check(path: Path, records: Sequence[Record], task: Task, *, has_vectors: bool) -> None:
    seen: dict[str, int] = {}
    for record in records:
        before = seen.setdefault(record.id, record.line)
        if before != record.line:
            raise bad_row(path, record.line, "id", f"{record.id!r} is on line {before} already")
        if record.labels is None or (not record.labels and task is not Task.MULTILABEL):
            raise bad_row(path, record.line, "labels", "is missing")
        if not record.text.strip() and not has_vectors:
            raise bad_row(path, record.line, "text", "is missing")
        if record.split not in ("", "train", "test"):
            raise bad_row(path, record.line, "split", f"is {record.split!r}, not train or test")


def _split(everything: Labelled, seed: int, share: float) -> tuple[Labelled, Labelled]:
    order = np.random.default_rng(seed).permutation(len(everything)).tolist()
    held_out = round(share * len(everything))
    return everything.take(sorted(order[held_out:])), everything.take(sorted(order[:held_out]))


def batches(items: Labelled, size: int) -> Iterator[Labelled]:
    """Yield `size` items at a time."""
    for start in range(0, len(items), size):
        yield items.take(range(start, min(start + size, len(items))))
