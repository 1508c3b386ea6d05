"""Items from a file into a pool, in atomic batches of bounded size."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sealpool.cli.records import Chunk, Record, bad_row, check_rows, read_chunks
from sealpool.client import IndexClient, LearnerClient
from sealpool.errors import AlreadyExists, InvalidArgument, NotFound
from sealpool.types import ItemId, Items, Payload, Vectors
from sealpool.v1 import index_pb2

MAX_BATCH_BYTES = 256 << 20
"""Vectors of one batch held in memory at most; a batch is cut short where its items are larger."""


@dataclass(kw_only=True, slots=True)
class IngestTotals:
    """What an ingest has done so far."""

    items: int = 0
    inserted: int = 0
    replaced: int = 0
    batches: int = 0
    pool_version: int = 0
    created: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Ingest:
    """Items of `path` into `pool`.

    Parameters
    ----------
    vectors
        .npy file with one row an item, in the file's order; None where vectors come from the file or the embedder.
    embed
        Turns texts into vectors, in chunks of its own size; None where vectors come from a file.
    create
        The pool to make if it does not exist; its dimension is that of the first vector. None: it must exist.
    batch_items
        Items in one atomic upsert.
    on_progress
        Told the share of the file that was read, and the items that have vectors, after each chunk.
    """

    index: IndexClient
    pool: str
    path: Path
    batch_items: int
    vectors: Path | None = None
    embed: Callable[[Sequence[str]], Iterator[Vectors]] | None = None
    create: index_pb2.PoolSpec | None = None
    on_progress: Callable[[float, int], None] = lambda _share, _items: None

    def run(self) -> IngestTotals:
        """Upload everything.

        A batch is applied as a whole or not at all; those before it stay. Running it again is harmless: items that
        are there already are replaced by themselves.

        Raises
        ------
        InvalidArgument
            A bad row (the message has file, line and field), or no vectors.
        NotFound
            The pool does not exist and `create` is None.
        """
        totals = IngestTotals()
        if self.create is None:
            self.index.get_pool(self.pool)
        for records, vectors in self._batches():
            if not totals.batches:
                totals.created = self._make_pool(vectors.shape[1])
            self._upload(records, vectors, totals)
        if not totals.batches:
            raise InvalidArgument(self.path.name, "holds no items")
        return totals

    def _make_pool(self, dimension: int) -> bool:
        if self.create is None:
            return False
        spec = index_pb2.PoolSpec()
        spec.CopyFrom(self.create)
        spec.dimension = dimension
        try:
            self.index.create_pool(spec)
        except AlreadyExists:
            return False
        return True

    def _upload(self, records: Sequence[Record], vectors: Vectors, totals: IngestTotals) -> None:
        _check_repeats(self.path, records)
        items = Items(
            ids=[ItemId(record.id) for record in records],
            vectors=vectors,
            payloads=[Payload(text=record.text, uri=record.uri, metadata=record.metadata) for record in records],
        )
        try:
            answer = self.index.upsert(self.pool, items)
        except (InvalidArgument, NotFound) as error:
            span = f"{self.path.name}, lines {records[0].line} to {records[-1].line}"
            raise InvalidArgument(span, error.message) from error
        totals.items += len(records)
        totals.inserted += answer.inserted
        totals.replaced += answer.replaced
        totals.pool_version = answer.pool_version
        totals.batches += 1

    def _batches(self) -> Iterator[tuple[list[Record], Vectors]]:
        records: list[Record] = []
        parts: list[Vectors] = []
        held_bytes = 0
        for chunk, vectors in self._with_vectors():
            if records and (len(records) + len(vectors) > self.batch_items or held_bytes > MAX_BATCH_BYTES):
                yield records, np.concatenate(parts)
                records, parts, held_bytes = [], [], 0
            records.extend(chunk)
            parts.append(vectors)
            held_bytes += vectors.nbytes
        if records:
            yield records, np.concatenate(parts)

    def _with_vectors(self) -> Iterator[tuple[Sequence[Record], Vectors]]:
        beside = None if self.vectors is None else self._open_vectors(self.vectors)
        done = 0
        for chunk in read_chunks(self.path, chunk_rows=min(1_000, self.batch_items)):
            if beside is not None:
                vectors = np.asarray(beside[done : done + len(chunk.records)], np.float32)
                check_rows(self.path, chunk.records, vectors, dimension=beside.shape[1])
            elif self.embed is not None:
                vectors = self._embedded(chunk, done)
            elif chunk.vectors is not None:
                vectors = chunk.vectors
            else:
                raise bad_row(
                    self.path, chunk.records[0].line, "vector", "is missing; give --vectors FILE.npy or --embedder NAME"
                )
            done += len(chunk.records)
            self.on_progress(chunk.share_read, done)
            yield chunk.records, vectors

    def _embedded(self, chunk: Chunk, done: int) -> Vectors:
        if self.embed is None:
            raise AssertionError("no embedder")
        for record in chunk.records:
            if not record.text.strip():
                raise bad_row(self.path, record.line, "text", "is empty: there is nothing to embed")
        parts: list[Vectors] = []
        for vectors in self.embed([record.text for record in chunk.records]):
            parts.append(vectors)
            done += len(vectors)
            self.on_progress(-1.0, done)
        return np.concatenate(parts)

    def _open_vectors(self, file: Path) -> Vectors:
        try:
            vectors: Vectors = np.load(file, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise InvalidArgument(file.name, f"is not a .npy file: {error}") from error
        if vectors.ndim != 2:
            raise InvalidArgument(file.name, f"has {vectors.ndim} axes, not 2")
        # Read once before anything is uploaded: a row too few or too many would shift what follows in silence.
        rows = sum(len(chunk.records) for chunk in read_chunks(self.path))
        if rows != len(vectors):
            raise InvalidArgument(file.name, f"has {len(vectors):,} rows for {rows:,} items in {self.path.name}")
        return vectors


def embedder(learner: LearnerClient, encoder: str, *, pooling: str) -> Callable[[Sequence[str]], Iterator[Vectors]]:
    """Return what turns texts into vectors through the learner."""
    return lambda texts: learner.embed(texts, encoder=encoder, pooling=pooling)


def _check_repeats(path: Path, records: Sequence[Record]) -> None:
    seen: dict[str, int] = {}
    for record in records:
        before = seen.setdefault(record.id, record.line)
        if before != record.line:
            raise bad_row(path, record.line, "id", f"{record.id!r} is on line {before} already")
