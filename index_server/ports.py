"""The ports of the index server: what an engine, a store and a candidate policy must do.

Adding one is one file and one line in its registry (`engines`, `store`, `candidates.policies`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NewType, Protocol

import numpy as np
from numpy.typing import NDArray

from index_server.records import FloatMatrix, Records
from index_server.spec import Metric
from index_server.store.stored_items import StoredItems
from sealpool.types import Vectors

Row = NewType("Row", int)
"""Where an item lies in the index: 0, 1, 2 … in the order of arrival. It changes when the index is rebuilt, so it is
never kept, sent or shown; what users know is an ItemId."""

Rows = NDArray[np.int64]
"""Many Rows; −1 where there is none."""

Scores = NDArray[np.float32]
"""Similarities, or Euclidean distances under L2, where nothing else is said."""

Addresses = NDArray[np.uint64]
"""Where items lie in the store, in the store's own numbers."""


class OutcomeUnknown(OSError):
    """A store failed in the middle of a commit, and cannot tell whether it happened."""


class Engine(Protocol):
    """Nearest neighbours over rows.

    Append-only: rows are given in order, never moved and never overwritten. A row is masked, and in no answer, until it
    is revealed, and again once it is removed; it keeps its memory. Rows are reclaimed by building another engine over
    those that are left.

    Vectors come in as they are to be compared: unit vectors under cosine, which is searched as inner product.

    Threads: `search`, `vectors`, `revealed` and the properties may be called by many threads at once; `breadth` be set
    by one meanwhile; `add`, `reveal` and `remove` be called by one, while no other call runs.
    """

    name: str
    """In the registry."""
    device: str
    """"cpu" or "cuda"."""

    @property
    def size(self) -> int:
        """Rows added, masked ones included."""

    @property
    def removed(self) -> int:
        """Rows masked: removed, or not revealed."""

    @property
    def memory_bytes(self) -> int:
        """Memory of vectors and index, in host and device. What is on disk is not counted."""

    @property
    def rounding(self) -> float:
        """What a score may be off by, as a share of |query|·|vector|, or of (|query| + |vector|)² under L2."""

    @property
    def breadth(self) -> float:
        """How many times wider than by default an approximate engine searches: 1.0 at first, and never below.

        Wider costs time and finds more. It has no effect on an exact engine.
        """

    @breadth.setter
    def breadth(self, value: float) -> None:
        """Search so wide from now on; ValueError below 1."""

    def settled(self) -> bool:
        """Whether what was added is searched as it will be: always, but in an engine that indexes behind its callers.

        Raises
        ------
        Unavailable
            The system that indexes is away.
        """

    def make_room(self, rows: int) -> None:
        """Wait until so many rows may be added, in an engine whose system lags behind. Called with no lock held."""

    def reserve(self, rows: int) -> None:
        """Take memory for about so many rows more, where that saves moving those that are there. Called as `add`."""

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Append `vectors` (n, d), masked, as `rows`, which must be size, size + 1 …; ValueError otherwise.

        Raises
        ------
        OSError
            The disk on which the engine keeps whole vectors is full. Nothing was added.
        """

    def reveal(self, rows: Rows) -> None:
        """Let `rows`, added before and each given once, be found."""

    def revealed(self, rows: Rows) -> NDArray[np.bool_]:
        """Say which of `rows`, all added before, are not masked: (n,) bool."""

    def remove(self, rows: Rows) -> None:
        """Mask `rows`. Masking one twice is no error."""

    def search(self, queries: Vectors, k: int, *, excluded: Rows | None = None) -> tuple[Rows, NDArray[np.float32]]:
        """Return the nearest rows of each query, neither masked nor in `excluded`.

        Returns
        -------
        rows : (q, k) int64
            Nearest first by the engine's own arithmetic; −1 pads where fewer than k rows are left, and only there:
            an approximate engine widens its search until it has k.
        scores : (q, k) float32
            Inner products, or squared Euclidean distances under L2, with the engine's rounding.

        Raises
        ------
        Unavailable
            The system in which the engine lies is away.
        """

    def vectors(self, rows: Rows) -> Vectors:
        """Return the vectors of `rows` as they were added: (n, d) float32, bit for bit.

        An engine that was asked to keep float16 may return them rounded to it; its scores are of the rounded ones too.
        """

    def save(self) -> bytes | None:
        """Return what training found, for another engine of this kind to begin with; None for one without training.

        Rows are not part of it: they come from the store.
        """

    def close(self) -> None:
        """Free device memory and threads. Nothing but `vectors` may be called after it."""


class Upload(Protocol):
    """Items on their way into a store. Nothing of them is visible before `Store.commit`.

    Use by one thread. `abort` after a commit does nothing; without one it removes what was written.
    """

    def write(self, records: Records) -> None:
        """Take some items, with vectors of the store's type and payloads. Memory used stays bounded.

        The arrays must not change from now on. Ids may be a pyarrow StringArray.

        Raises
        ------
        ResourceExhausted
            The disk is full: now, or when a part of what was written before was put on disk meanwhile.
        Unavailable
            The store is closed.
        """

    def finish(self) -> None:
        """Put everything that was written on disk, so that the commit is short. Raises as `write`."""

    def vectors(self) -> Iterator[FloatMatrix]:
        """Read back, from disk, the vectors of a finished upload that is not committed yet.

        As stored and in the order written, in parts of bounded size: (n, d).
        """

    def abort(self) -> None:
        """Remove what was written, unless it was committed."""


class Snapshot(Protocol):
    """A store at one version, whatever happens after: its files stay as long as this object is held.

    Threads: any number.
    """

    @property
    def version(self) -> int:
        """The version."""

    @property
    def count(self) -> int:
        """Items."""

    def addresses(self, *, last: int | None = None) -> Addresses:
        """Return the addresses of all items in the store's order, or of the `last` ones."""

    def items(self) -> Iterator[StoredItems]:
        """Read ids and vectors of all items in the store's order, in chunks of bounded size, as fast as the disk."""

    def scan(self, *, vectors: bool, payloads: bool) -> Iterator[Records]:
        """Read all items in the store's order, in chunks of bounded size."""

    def take(self, addresses: Addresses, *, vectors: bool, payloads: bool) -> Records:
        """Read the items at `addresses`, in that order; `ids` are read too."""


class Store(Protocol):
    """The items of one pool on disk, versioned.

    A version that `commit` returned is durable: it survives kill -9 and power loss, whole; whatever was begun after it
    leaves no trace once the store is opened again. The order of items is that of their arrival, and a replaced item
    arrives anew. Compaction keeps the order and gives new addresses.

    Threads: `begin` and `snapshot` by any; one at a time of `commit` and `commit_compaction`; `prepare_compaction` by
    one, while all others go on.
    """

    @property
    def version(self) -> int:
        """The last version committed."""

    def snapshot(self) -> Snapshot:
        """Return the store at its last version."""

    def begin(self) -> Upload:
        """Begin to write items."""

    def commit(self, uploads: Sequence[Upload], superseded: Addresses) -> None:
        """Make the items of finished `uploads` visible and those at `superseded` gone, in one step.

        The new items are the last ones of the new version, upload after upload, each in the order written.

        Raises
        ------
        ResourceExhausted
            The disk is full.
        OutcomeUnknown
            The disk failed. Whether it happened is known when the store is opened again; until then nothing but
            snapshots may be asked of it. After any other error nothing happened.
        """

    def wants_compaction(self) -> bool:
        """Whether small fragments or deleted items have grown beyond what is worth keeping."""

    def prepare_compaction(self, budget_bytes: int) -> object | None:
        """Rewrite small fragments and those with deleted items, about `budget_bytes` of vectors, and commit nothing.

        Returns
        -------
        object or None
            What `commit_compaction` takes, and nothing else; None where nothing is worth rewriting. One that is not
            committed takes disk until the store is opened again.

        Raises
        ------
        ResourceExhausted
            The disk is full.
        Unavailable
            The store is closed.
        """

    def prepare_purge(self, budget_bytes: int) -> object | None:
        """Rewrite whatever has deleted items in it, as `prepare_compaction` does; None where nothing has."""

    def collect(self, *, before: int) -> bool:
        """Remove the files of versions that nobody reads any more; say whether none is left from `before` that one."""

    def commit_compaction(self, rewrite: object) -> bool:
        """Make a new version of what was rewritten: the same items in the same order, many at new addresses.

        False, and nothing is left of it, where an item that was rewritten is gone by now: prepare anew. Raises as
        `commit`.
        """

    def close(self) -> None:
        """Write nothing from now on: uploads that are under way raise Unavailable."""


class Neighbourhood(Protocol):
    """What a candidate policy may ask of the pool, at one version of it."""

    @property
    def metric(self) -> Metric:
        """Says whether higher or lower scores are nearer."""

    def live_rows(self) -> Rows:
        """Return the rows of all items in the pool's order."""

    def nearest(self, rows: Rows, k: int) -> tuple[Rows, Scores]:
        """Return the k nearest items of each of `rows`, nearest first, itself left out, and their scores.

        Returns
        -------
        neighbors : (n, k) int64
            −1 pads where there are fewer.
        scores : (n, k) float32
            Similarities, or Euclidean distances under L2.
        """

    def vectors(self, rows: Rows) -> Vectors:
        """Return the vectors of `rows` as they are compared, unit vectors under cosine: (n, d) float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyOptions:
    """A PolicySpec with its defaults filled in. What a policy has no use for is 0."""

    k: int = 0
    max_candidates: int = 0
    subpool_size: int = 0
    anchors: int = 0
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """What a candidate pool is to grow by.

    Parameters
    ----------
    sources
        Labelled items that bring their neighbours, for the first time.
    labelled
        All labelled items that are in the pool, those of this call too, in the order in which they were told.
    labels
        The classes of each of `labelled`, None where they were not told.
    draw
        The version of the candidate pool that the growth makes: with the seed it names a random draw.
    """

    sources: Rows
    labelled: Rows
    labels: Sequence[Sequence[int] | None]
    draw: int
    options: PolicyOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """Items that belong in a candidate pool, in the order in which they are to be added.

    Parameters
    ----------
    rows
        (n,). Labelled items, present candidates and repetitions may be among them: the caller leaves them out, and of
        a repeated one the first counts.
    sources
        (n,), the labelled item that brought each; −1 where there is no single one.
    scores
        (n,) float32, similarity or distance to the source, or what the policy ranks by; NaN where there is none.
    replaces
        Whether the candidate pool becomes exactly these: present candidates that are not among them leave.
    """

    rows: Rows
    sources: Rows
    scores: Scores
    replaces: bool = False


class CandidatePolicy(Protocol):
    """Decides what is in a candidate pool."""

    name: str
    """In the registry."""
    options: frozenset[str]
    """The fields of PolicyOptions that it has."""
    defaults: PolicyOptions
    """What stands for a zero of PolicySpec."""
    needs_labels: bool
    """Whether the classes of labelled items must be told."""

    def propose(self, neighbourhood: Neighbourhood, growth: Growth) -> Proposal:
        """Return what belongs in the candidate pool."""
