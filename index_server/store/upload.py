"""Items on their way into a Lance data set."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import pyarrow as pa

from index_server.records import FloatMatrix, PayloadColumns, Records

PART_BYTES: Final = 64 << 20
"""What one data file takes. Memory holds a few times as much: what waits, what is written, and Lance's copies."""
_IN_FLIGHT: Final = 2


class UploadFiles:
    """What an upload asks of its store.

    Parameters
    ----------
    write
        Writes batches into data files that no version names, synced, and returns their fragments: all or nothing.
    read
        Reads the vectors of fragments back.
    remove
        Removes the data files of fragments.
    """

    def __init__(
        self,
        *,
        schema: pa.Schema,
        write: Callable[[list[pa.RecordBatch]], list[Any]],
        read: Callable[[list[Any]], Iterator[FloatMatrix]],
        remove: Callable[[list[Any]], None],
    ) -> None:
        self.schema = schema
        self.write = write
        self.read = read
        self.remove = remove


class LanceUpload:
    """Items being written into data files that no version names yet.

    Parts are written and synced by threads of their own while the next arrives: Lance takes as long to write one as
    the disk to sync it, and both as long as it takes to arrive. An upload that fits in one part has no thread.
    """

    def __init__(self, files: UploadFiles) -> None:
        self._files = files
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0
        self._writer: ThreadPoolExecutor | None = None
        self._in_flight: deque[Future[list[Any]]] = deque()
        self.fragments: list[Any] = []

    def write(self, records: Records) -> None:
        """Take some items, whose arrays must not change from now on; spill when enough are waiting."""
        batch = to_batch(records, self._files.schema)
        self._waiting.append(batch)
        self._waiting_bytes += batch.nbytes
        if self._waiting_bytes >= PART_BYTES:
            self._spill()

    def finish(self) -> None:
        """Write and sync the rest."""
        if self._writer is None and self._waiting:
            self.fragments += self._files.write(self._take_waiting())
        elif self._waiting:
            self._spill()
        self._land(0)
        self._stop()

    def vectors(self) -> Iterator[FloatMatrix]:
        """Read the vectors back from the data files of a finished upload, in order."""
        return self._files.read(self.fragments)

    def abort(self) -> None:
        """Remove the data files, unless they were committed."""
        self._take_waiting()
        self._stop()
        for part in self._in_flight:
            if part.exception() is None:  # one that failed left no file
                self.fragments += part.result()
        self._in_flight.clear()
        fragments, self.fragments = self.fragments, []
        self._files.remove(fragments)

    def _spill(self) -> None:
        self._land(_IN_FLIGHT - 1)
        if self._writer is None:
            self._writer = ThreadPoolExecutor(_IN_FLIGHT, "upload")
        self._in_flight.append(self._writer.submit(self._files.write, self._take_waiting()))

    def _land(self, left: int) -> None:
        """Wait until at most `left` parts are in flight, and raise what became of the others."""
        while len(self._in_flight) > left:
            self.fragments += self._in_flight.popleft().result()

    def _take_waiting(self) -> list[pa.RecordBatch]:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return waiting

    def _stop(self) -> None:
        if self._writer is not None:
            self._writer.shutdown()
            self._writer = None


def to_batch(records: Records, schema: pa.Schema) -> pa.RecordBatch:
    """Return items as columns of `schema`. Vectors are not copied if they are contiguous and of its type."""
    if records.vectors is None:
        raise ValueError("items without vectors cannot be stored")
    field = schema.field("vector")
    flat = pa.array(records.vectors.reshape(-1), field.type.value_type)
    columns = [
        records.ids if isinstance(records.ids, pa.StringArray) else pa.array(records.ids, pa.string()),
        pa.FixedSizeListArray.from_arrays(flat, type=field.type),
        *_payload_arrays(records.payloads, len(records)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _payload_arrays(payloads: PayloadColumns | None, count: int) -> list[pa.StringArray]:
    if payloads is None:
        # 200,000 empty strings through Python objects take 10 ms, which is a tenth of writing their vectors.
        blank = pa.StringArray.from_buffers(count, pa.py_buffer(bytes(4 * (count + 1))), pa.py_buffer(b""))
        return [blank] * 3
    return [pa.array(c, pa.string()) for c in (payloads.texts, payloads.uris, payloads.metadata_json)]
