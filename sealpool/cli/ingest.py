"""Items from a file into a pool, in atomic batches of bounded size."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from sealpool.cli.ingest_survey import Survey, check_vector_column, survey
from sealpool.cli.output import note
from sealpool.cli.records import Record, bad_row, check_rows, read_chunks
from sealpool.client import IndexClient, LearnerClient
from sealpool.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from sealpool.types import ItemId, Items, Payload, Vectors
from sealpool.v1 import index_pb2
from sealpool.validation import check_name

MAX_BATCH_BYTES = 256 << 20
"""Vectors of one batch held in memory at most; a batch is cut short where its items are larger."""

T = TypeVar("T")


@dataclass(kw_only=True, slots=True)
class IngestTotals:
    """What an ingest has done so far."""

    items: int = 0
    inserted: int = 0
    replaced: int = 0
    skipped: int = 0
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
    skip_existing
        Leave out rows whose id the pool has already.
    wait_s
        How long to wait for an index server that goes away on the way.
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
    skip_existing: bool = False
    wait_s: float = 30.0
    on_progress: Callable[[float, int], None] = lambda _share, _items: None
    totals: IngestTotals = field(default_factory=IngestTotals)

    def check(self) -> Survey:
        """Find what can be found wrong before anything is embedded or uploaded.

        Raises
        ------
        InvalidArgument
            A bad row (the message has file, line and field), an id that comes twice, no vectors, or vectors of another
            dimension than the pool's.
        FailedPrecondition
            The pool does not exist and `create` is None.
        """
        check_name("POOL", self.pool)
        dimension = self._dimension()

        def in_pool(ids: Sequence[str]) -> Sequence[str]:
            if not self.skip_existing or dimension is None:
                return ()
            return self.index.get_items(self.pool, ids, vectors=False, allow_missing=True).ids

        found = survey(self.path, texts=self.embed is not None, in_pool=in_pool)
        if self.vectors is not None:
            beside = self._open_vectors(self.vectors)
            if found.rows != len(beside):
                problem = f"has {len(beside):,} rows for {found.rows:,} items in {self.path.name}"
                raise InvalidArgument(self.vectors.name, problem)
            if dimension is not None and beside.shape[1] != dimension:
                raise InvalidArgument(
                    self.vectors.name, f"has dimension {beside.shape[1]}; the pool {self.pool} has {dimension}"
                )
        elif self.embed is None:
            check_vector_column(self.path, dimension)
        return found

    def run(self, found: Survey) -> IngestTotals:
        """Upload everything but what `found` leaves out; `totals` grows with it.

        A batch is applied as a whole or not at all; those before it stay. Running it again is harmless: items that
        are there already are replaced by themselves.

        Raises
        ------
        InvalidArgument
            A bad row; the message has file, line and field.
        Unavailable
            A service was away for longer than `wait_s`.
        """
        self.totals.skipped = len(found.skipped)
        for records, vectors in self._batches(found):
            if not self.totals.batches:
                self.totals.created = self._make_pool(vectors.shape[1])
            self._upload(records, vectors)
        return self.totals

    def _dimension(self) -> int | None:
        try:
            return self.index.get_pool(self.pool).spec.dimension
        except NotFound as error:
            if self.create is None:
                raise FailedPrecondition(f"{error.message}; --create makes it") from error
            return None

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

    def _upload(self, records: Sequence[Record], vectors: Vectors) -> None:
        totals = self.totals
        items = Items(
            ids=[ItemId(record.id) for record in records],
            vectors=vectors,
            payloads=[Payload(text=record.text, uri=record.uri, metadata=record.metadata) for record in records],
        )
        try:
            answer = self._patiently(lambda: self.index.upsert(self.pool, items))
        except (InvalidArgument, NotFound) as error:
            span = f"{self.path.name}, lines {records[0].line} to {records[-1].line}"
            raise InvalidArgument(span, error.message) from error
        totals.items += len(records)
        totals.inserted += answer.inserted
        totals.replaced += answer.replaced
        totals.pool_version = answer.pool_version
        totals.batches += 1

    def pool_now(self) -> index_pb2.Pool:
        """Return the pool as it is, waiting for the server as an upload does."""
        return self._patiently(lambda: self.index.get_pool(self.pool))

    def _patiently(self, call: Callable[[], T]) -> T:
        """Call again while the server is away or says when to come again: the same items twice change nothing."""
        deadline = time.monotonic() + self.wait_s
        told = False
        while True:
            try:
                return call()
            except (Unavailable, ResourceExhausted) as error:
                pause_s = 0.2 if isinstance(error, Unavailable) else error.retry_after_s
                if pause_s is None or time.monotonic() + pause_s >= deadline:
                    raise
                if not told:
                    why = "is away" if isinstance(error, Unavailable) else "takes no more for now"
                    note(f"the index server {why}; waiting for it, up to {self.wait_s:.0f} s")
                told = True
                time.sleep(pause_s)

    def _batches(self, found: Survey) -> Iterator[tuple[list[Record], Vectors]]:
        records: list[Record] = []
        parts: list[Vectors] = []
        held_bytes = 0
        for chunk, vectors in self._with_vectors(found):
            if records and (len(records) + len(vectors) > self.batch_items or held_bytes > MAX_BATCH_BYTES):
                yield records, np.concatenate(parts)
                records, parts, held_bytes = [], [], 0
            records.extend(chunk)
            parts.append(vectors)
            held_bytes += vectors.nbytes
        if records:
            yield records, np.concatenate(parts)

    def _with_vectors(self, found: Survey) -> Iterator[tuple[Sequence[Record], Vectors]]:
        beside = None if self.vectors is None else self._open_vectors(self.vectors)
        done = 0
        own = beside is None and self.embed is None
        for chunk in read_chunks(self.path, chunk_rows=min(1_000, self.batch_items), vectors=own):
            rows = [row for row, record in enumerate(chunk.records) if record.id not in found.skipped]
            records = [chunk.records[row] for row in rows]
            if records:
                if beside is not None:
                    vectors = np.asarray(beside[done : done + len(chunk.records)], np.float32)[rows]
                    check_rows(self.path, records, vectors, dimension=beside.shape[1])
                elif self.embed is not None:
                    vectors = self._embedded(records, done)
                elif chunk.vectors is not None:
                    vectors = chunk.vectors[rows]
                else:
                    raise bad_row(self.path, records[0].line, "vector", "is missing")
                yield records, vectors
            done += len(chunk.records)
            self.on_progress(chunk.share_read, done)

    def _embedded(self, records: Sequence[Record], done: int) -> Vectors:
        if self.embed is None:
            raise AssertionError("no embedder")
        parts: list[Vectors] = []
        for vectors in self.embed([record.text for record in records]):
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
        return vectors


def embedder(learner: LearnerClient, encoder: str, *, pooling: str) -> Callable[[Sequence[str]], Iterator[Vectors]]:
    """Return what turns texts into vectors through the learner."""
    return lambda texts: learner.embed(texts, encoder=encoder, pooling=pooling)
