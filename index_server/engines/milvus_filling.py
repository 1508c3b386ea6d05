"""Keeping a Milvus collection in step with a vector log, in a thread of its own."""

import threading
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index_server.engines.milvus_messages import Keys
from index_server.engines.milvus_server import LEAST_INDEXED, MilvusServer, Shape
from index_server.engines.vector_log import VectorLog
from index_server.ports import Rows
from sealpool.errors import SealpoolError, Unavailable

MAX_BEHIND: Final = 65_536
"""Rows that Milvus may lack: a search compares with each of them."""
_INSERT_BYTES: Final = 8 << 20
"""Of vectors in one message. Milvus takes 64 MiB."""
_DELETED_ROWS: Final = 10_000
_SEALED_SHARE: Final = 0.1
"""Rows that came since are indexed once they are so large a share of the collection. Milvus scans them before."""
_POLL_S: Final = 0.2
_MAX_POLLS: Final = 9000
_AGAIN_S: Final = 2.0
_EPOCH_BITS: Final = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class There:
    """What Milvus has: the rows below `rows`, in a collection, from a time on.

    An insertion that failed may have happened, or still happen. Its rows are sent again in another epoch, and what has
    an earlier one than its row counts for nothing. `epochs[i]` is the first row of epoch i.
    """

    name: str
    rows: int = 0
    timestamp: int = 1
    epochs: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))

    def keys(self, rows: Rows) -> Keys:
        """Return the keys of rows."""
        keys: Keys = rows << _EPOCH_BITS | (np.searchsorted(self.epochs, rows, side="right") - 1)
        return keys

    def rows_of(self, keys: Keys) -> Rows:
        """Return the rows of keys (any shape), −1 for a key that is −1 or none of a row below `rows`."""
        rows = keys >> _EPOCH_BITS
        return np.where((keys >= 0) & (rows < self.rows) & (self.keys(rows) == keys), rows, -1)

    def key_below(self, row: int) -> int:
        """Return the key that those of all rows below `row`, and of no others, are below."""
        return row << _EPOCH_BITS


class Filling:
    """Puts the rows of `log` into a collection, and deletes from it those that are gone, behind who adds them.

    While Milvus is away it is tried again every two seconds. A collection that is lost is made and filled anew.

    Threads: any; `grow`, `delete` and `close` by one.
    """

    def __init__(self, server: MilvusServer, log: VectorLog, shape: Shape) -> None:
        self._server = server
        self._log = log
        self._shape = shape
        self._batch = max(1, _INSERT_BYTES // (4 * shape.dimension))
        self._changed = threading.Condition()
        self._there: There | None = None
        self._size = 0
        self._gone: list[Rows] = []
        self._deleted = 0
        """How many of `_gone` Milvus has been told."""
        self._deleting = 0
        """How many of `_gone` it may have heard of: one more while a deletion is under way or has failed."""
        self._sealed = 0
        self._polls: int | None = None
        """How often the index was asked for, None where it is not waited for."""
        self._doubted = False
        self._failure = ""
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="milvus", daemon=True)
        self._thread.start()

    @property
    def there(self) -> There:
        """What Milvus has now."""
        with self._changed:
            return self._there or There(name="")

    @property
    def failure(self) -> str:
        """Why the latest attempt to reach Milvus failed, "" if it did not."""
        return self._failure

    def make_room(self, rows: int) -> None:
        """Wait until Milvus, with `rows` more, is no further behind than a search can bear, unless it is away."""
        most = max(0, MAX_BEHIND - rows)
        with self._changed:
            self._changed.wait_for(lambda: self._behind <= most or bool(self._failure) or self._closing)

    def grow(self, size: int) -> None:
        """Take notice that the log has `size` rows."""
        with self._changed:
            self._size = size
            self._changed.notify_all()

    def delete(self, rows: Rows) -> None:
        """Let Milvus delete rows, soon."""
        with self._changed:
            self._gone.append(rows)
            self._changed.notify_all()

    def doubt(self) -> None:
        """Look whether the collection is there, before anything else: a search of it failed."""
        with self._changed:
            self._doubted = True
            self._changed.notify_all()

    def settled(self) -> bool:
        """Whether Milvus has all rows and has indexed them.

        Raises
        ------
        Unavailable
            It is away.
        """
        with self._changed:
            if self._failure:
                raise Unavailable(self._failure)
            return self._there is not None and not self._doubted and self._behind == 0 and not self._to_be_sealed()

    def close(self) -> None:
        """End the thread and let go of the collection. A Milvus that hangs is not waited for."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(self._server.timeout_s)

    @property
    def _behind(self) -> int:
        return self._size - (self._there.rows if self._there else 0)

    def _to_be_sealed(self) -> bool:
        rows = self._there.rows if self._there else 0
        return self._polls is not None or rows - self._sealed >= max(LEAST_INDEXED, _SEALED_SHARE * rows)

    def _run(self) -> None:
        try:
            self._fill()
        finally:
            if not self._closing:
                self._failed("a fault of ours ended the thread that fills it: restart the index server")
            elif self._there is not None:  # also one that was being made while `close` gave up waiting
                self._server.forget(self._there.name, reachable=not self._failure)

    def _fill(self) -> None:
        while not self._closing:
            try:
                wait_s = self._step()
                self._succeeded()
            except (SealpoolError, OSError, RuntimeError, ValueError, LookupError, MemoryError) as error:
                self._failed(str(error) or type(error).__name__)  # and on: without this thread no search would be right
                wait_s = _AGAIN_S
            with self._changed:
                self._changed.wait_for(lambda: self._closing or (self._has_work and not self._failure), wait_s)

    @property
    def _has_work(self) -> bool:
        return self._doubted or self._behind > 0 or self._deleted < len(self._gone) or self._seals_now

    @property
    def _seals_now(self) -> bool:
        return self._polls is None and self._to_be_sealed()

    def _step(self) -> float | None:
        """Do what comes first; return how long to wait where nothing new comes, None for ever."""
        if self._there is None or self._doubted:
            self._restore()
        elif self._behind:
            self._insert(self._there)
        elif self._deleted < len(self._gone):
            self._delete(self._there)
        elif self._seals_now:
            self._server.seal(self._there.name)
            self._sealed, self._polls = self._there.rows, 0
        elif self._polls is not None:
            self._poll(self._there)
        return None if self._polls is None else _POLL_S

    def _restore(self) -> None:
        """Make a collection, unless there is one with all that it should have."""
        there = self._there
        if there is not None and self._is_whole(there):
            self._become(there, doubted=False)
            return
        if there is not None:
            self._server.log.warning("milvus collection lost", collection=there.name, rows=there.rows)
            self._server.forget(there.name)
        self._become(There(name=self._server.create(self._shape)), doubted=False)
        self._deleted = self._deleting = self._sealed = 0
        self._polls = None

    def _is_whole(self, there: There) -> bool:
        if len(there.epochs) >= 1 << _EPOCH_BITS or not self._server.exists(there.name):
            return False
        self._server.load(there.name)
        gone = sum(len(rows) for rows in self._gone[: self._deleting])
        return self._server.count(there.name, there.timestamp) >= there.rows - gone

    def _insert(self, there: There) -> None:
        rows = np.arange(there.rows, min(there.rows + self._batch, self._size))
        try:
            seen = self._server.insert(there.name, there.keys(rows), self._log.take(rows))
        except Unavailable:
            self._become(replace(there, epochs=np.append(there.epochs, there.rows)))
            self.doubt()
            raise
        self._become(replace(there, rows=there.rows + len(rows), timestamp=max(seen, there.timestamp)))

    def _delete(self, there: There) -> None:
        rows = self._gone[self._deleted]
        self._deleting = self._deleted + 1
        for start in range(0, len(rows), _DELETED_ROWS):
            self._server.delete(there.name, there.keys(rows[start : start + _DELETED_ROWS]))
        self._deleted += 1

    def _poll(self, there: There) -> None:
        self._polls = (self._polls or 0) + 1
        gone = sum(len(rows) for rows in self._gone)
        if self._polls > _MAX_POLLS or self._server.indexed(there.name, self._sealed - gone):
            self._polls = None

    def _become(self, there: There, *, doubted: bool | None = None) -> None:
        with self._changed:
            self._there = there
            self._doubted = self._doubted if doubted is None else doubted
            self._changed.notify_all()

    def _succeeded(self) -> None:
        with self._changed:
            was, self._failure = self._failure, ""
            self._changed.notify_all()
        if was:
            self._server.log.info("milvus is back")

    def _failed(self, reason: str) -> None:
        with self._changed:
            was, self._failure = self._failure, reason
            self._changed.notify_all()
        if not was:
            self._server.log.warning("milvus is away", reason=reason)
