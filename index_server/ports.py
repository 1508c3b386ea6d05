"""The ports of the index server: what an engine, a store and a candidate policy must do.

Adding one is one file and one line in its registry (`engines`, `store`, `candidates.policies`).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NewType, Protocol

import numpy as np
from numpy.typing import NDArray

from index_server.records import Records
from sealpool.types import ItemId, Vectors

Row = NewType("Row", int)
"""Where an item lies in the index: 0, 1, 2 … in the order of arrival. It changes when the index is rebuilt, so it is
never kept, sent or shown; what users know is an ItemId."""

Rows = NDArray[np.int64]
"""Many Rows; −1 where there is none."""

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

    Threads: `search`, `vectors` and the properties may be called by many threads at once; `add`, `reveal` and `remove`
    by one, while no other call runs.
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
        """Memory of vectors and index, in host and device."""

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Append `vectors` (n, d), masked, as `rows`, which must be size, size + 1 …; ValueError otherwise."""

    def reveal(self, rows: Rows) -> None:
        """Let `rows`, added before and each given once, be found."""

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
        """

    def vectors(self, rows: Rows) -> Vectors:
        """Return the vectors of `rows` as they were added: (n, d) float32, bit for bit."""

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

        Raises
        ------
        ResourceExhausted
            The disk is full.
        """

    def finish(self) -> None:
        """Put everything that was written on disk, so that the commit is short. Raises as `write`."""

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

    def scan(self, *, vectors: bool, payloads: bool) -> Iterator[Records]:
        """Read all items in the store's order, in chunks of bounded size."""

    def take(self, addresses: Addresses, *, vectors: bool, payloads: bool) -> Records:
        """Read the items at `addresses`, in that order; `ids` are read too."""


class Store(Protocol):
    """The items of one pool on disk, versioned.

    A version that `commit` returned is durable: it survives kill -9 and power loss, whole; whatever was begun after it
    leaves no trace once the store is opened again. The order of items is that of their arrival, and a replaced item
    arrives anew. Compaction keeps the order and gives new addresses.

    Threads: `begin` and `snapshot` by any, `commit` and `compact` by one at a time.
    """

    @property
    def version(self) -> int:
        """The last version committed."""

    def snapshot(self) -> Snapshot:
        """Return the store at its last version."""

    def begin(self) -> Upload:
        """Begin to write items."""

    def commit(self, upload: Upload | None, superseded: Addresses) -> None:
        """Make the items of a finished `upload` visible and those at `superseded` gone, in one step.

        The new items are the last ones of the new version, in the order written.

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

    def compact(self) -> None:
        """Rewrite small fragments and reclaim deleted items. A new version with new addresses and the same items.

        Raises as `commit`.
        """

    def close(self) -> None:
        """Write nothing from now on: uploads that are under way raise Unavailable."""


class Neighbourhood(Protocol):
    """What a candidate policy may ask of the pool, at one version of it."""

    def require(self, ids: Sequence[ItemId]) -> None:
        """Raise NotFound, naming those of `ids` that the pool does not have."""

    def nearest(self, ids: Sequence[ItemId], k: int) -> Iterable[Sequence[ItemId]]:
        """Return the k nearest items of each of `ids`, nearest first, itself left out."""

    def item_ids(self) -> Iterable[ItemId]:
        """Return the ids of all items in the pool's order."""


class CandidatePolicy(Protocol):
    """Decides what is in a candidate pool.

    The set proposed over several calls must not depend on how the labelled items were divided among them.
    """

    name: str
    """In the registry."""

    def propose(self, neighbourhood: Neighbourhood, expand_from: Sequence[ItemId], *, k: int) -> Iterable[ItemId]:
        """Return items that belong in the candidate pool, in the order in which they are to be added.

        Labelled items, present candidates and repetitions may be among them: the caller leaves them out.
        """
