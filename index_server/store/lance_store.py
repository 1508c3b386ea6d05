"""A pool's items in a Lance data set.

Lance writes a new manifest for each version but syncs nothing. So a version counts only when HEAD, a small file of our
own, names it, and HEAD is replaced only after every file of that version was synced. What lies beyond HEAD when a store
is opened, torn or whole, was never acknowledged, and is removed.
"""

import contextlib
import json
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import lance
import numpy as np
import pyarrow as pa
from lance.fragment import write_fragments
from lance.optimize import Compaction

from index_server.ports import Addresses, OutcomeUnknown, Upload
from index_server.records import PayloadColumns, Records
from index_server.spec import VectorType
from index_server.store.layout import LanceLayout
from sealpool.durable import full_disk_is_exhaustion, sync_directory, sync_files, sync_tree, write_durably
from sealpool.errors import FailedPrecondition, Unavailable
from sealpool.failpoint import reach
from sealpool.types import ItemId

_PAYLOAD_COLUMNS: Final = ["text", "uri", "metadata_json"]
_SPILL_BYTES: Final = 64 << 20
_SCAN_BYTES: Final = 8 << 20
_SCAN_ROWS_WITH_PAYLOADS: Final = 512
_FRAGMENT_ROWS: Final = 131_072
"""What compaction aims at. Larger fragments are left alone, so a pass rewrites little more than so many items."""
_MAX_SMALL_FRAGMENTS: Final = 64
_MAX_DELETED_SHARE: Final = 0.25
_METADATA_CACHE_BYTES: Final = 64 << 20
_DIRECTORIES: Final = ("data", "_deletions", "_transactions", "_versions")


class LanceSnapshot:
    """A Lance data set at one version."""

    def __init__(self, dataset: lance.LanceDataset, files: frozenset[str]) -> None:
        self.dataset = dataset
        self.files = files
        self.version = int(dataset.version)
        self.count = int(dataset.count_rows())

    def addresses(self, *, last: int | None = None) -> Addresses:
        """Return the addresses of all items, or of the last ones, in order."""
        if last == 0:
            return np.empty(0, np.uint64)
        offset = None if last is None else self.count - last
        table = self.dataset.to_table(columns=[], with_row_address=True, offset=offset)
        addresses: Addresses = table["_rowaddr"].to_numpy()
        return addresses

    def scan(self, *, vectors: bool, payloads: bool) -> Iterator[Records]:
        """Read all items in order."""
        dimension = self.dataset.schema.field("vector").type.list_size
        rows = max(1, _SCAN_BYTES // (4 * dimension))
        if payloads:
            rows = min(rows, _SCAN_ROWS_WITH_PAYLOADS)
        columns = _columns(vectors=vectors, payloads=payloads)
        for batch in self.dataset.to_batches(columns=columns, batch_size=rows, scan_in_order=True):
            if batch.num_rows:
                yield _to_records(batch)

    def take(self, addresses: Addresses, *, vectors: bool, payloads: bool) -> Records:
        """Read the items at `addresses` in that order."""
        columns = _columns(vectors=vectors, payloads=payloads)
        # The public `take` goes by position among the live rows, which every deletion shifts.
        table = self.dataset._take_rows(pa.array(addresses, pa.uint64()), columns=columns)  # noqa: SLF001
        if table.num_rows != len(addresses):
            raise RuntimeError(f"{len(addresses) - table.num_rows} addresses hold no item at version {self.version}")
        return _to_records(table.combine_chunks())


class LanceUpload:
    """Items being written into data files that no version names yet."""

    def __init__(self, store: "LanceStore") -> None:
        self._store = store
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0
        self.fragments: list[Any] = []

    def write(self, records: Records) -> None:
        """Take some items; spill when enough are waiting."""
        batch = self._store.to_batch(records)
        self._waiting.append(batch)
        self._waiting_bytes += batch.nbytes
        if self._waiting_bytes >= _SPILL_BYTES:
            self._spill()

    def finish(self) -> None:
        """Spill the rest and sync all."""
        self._spill()
        self._store.sync_uncommitted(self.fragments)

    def abort(self) -> None:
        """Remove the data files, unless they were committed."""
        self._waiting.clear()
        fragments, self.fragments = self.fragments, []
        self._store.remove_uncommitted(fragments)

    def _spill(self) -> None:
        if self._waiting:
            self.fragments += self._store.write_uncommitted(self._waiting)
            self._waiting, self._waiting_bytes = [], 0


class LanceStore:
    """The items of one pool in `directory`: the data set `items.lance`, and HEAD."""

    def __init__(self, directory: Path, *, version: int) -> None:
        self._head = directory / "HEAD"
        self._layout = LanceLayout(directory / "items.lance")
        # Held while data and deletion files are written, until a version or `_uncommitted` names them: so that a file
        # which nobody names is certainly an orphan.
        self._writing = threading.RLock()
        self._closed = False
        self._uncommitted: set[str] = set()
        self._layout.discard_after(version)
        dataset = self._open(version)
        self._current = LanceSnapshot(dataset, self._layout.files_of(dataset))
        self._schema: pa.Schema = self._current.dataset.schema
        self._retained: dict[int, tuple[weakref.ref[LanceSnapshot], frozenset[str]]] = {}
        self._retain(self._current)

    @classmethod
    def create(cls, directory: Path, *, dimension: int, vector_type: VectorType) -> None:
        """Make an empty store in an existing directory, and sync it."""
        value_type = pa.float16() if vector_type is VectorType.FLOAT16 else pa.float32()
        schema = pa.schema(
            [
                pa.field("id", pa.string(), nullable=False),
                pa.field("vector", pa.list_(value_type, dimension), nullable=False),
                *(pa.field(name, pa.string(), nullable=False) for name in _PAYLOAD_COLUMNS),
            ]
        )
        root = directory / "items.lance"
        with full_disk_is_exhaustion("a new pool", directory):
            for name in _DIRECTORIES:
                (root / name).mkdir(parents=True)
            dataset = lance.write_dataset(schema.empty_table(), root, mode="create")
            sync_tree(root)
            write_durably(directory / "HEAD", _head_bytes(dataset.version))

    @classmethod
    def open(cls, directory: Path) -> "LanceStore":
        """Open a store at the version that HEAD names, and remove what no acknowledged version needs.

        Raises
        ------
        FailedPrecondition
            HEAD cannot be read.
        OSError, ValueError
            Lance cannot read that version.
        """
        store = cls(directory, version=_read_head(directory / "HEAD"))
        store._layout.keep_only(store.version, store._current.files)
        return store

    @property
    def version(self) -> int:
        """The last version committed."""
        return self._current.version

    def snapshot(self) -> LanceSnapshot:
        """Return the store at its last version."""
        return self._current

    def begin(self) -> LanceUpload:
        """Begin to write items."""
        return LanceUpload(self)

    def commit(self, upload: Upload | None, superseded: Addresses) -> None:
        """Commit new items and deletions as one version."""
        fragments = upload.fragments if isinstance(upload, LanceUpload) else []
        dataset = self._current.dataset
        with self._writing, self._all_or_nothing("a change of the pool"):
            removed, updated = _delete(dataset, superseded)
            files = self._layout.files_of_fragments(updated)
            sync_files(self._layout.root / name for name in files - self._current.files)
            reach("index.upsert.after_data")
            operation = lance.LanceOperation.Update(removed, updated, fragments, [])
            self._install(lance.LanceDataset.commit(dataset, operation, read_version=dataset.version), "upsert")
        if isinstance(upload, LanceUpload):
            self._forget_uncommitted(upload.fragments)
            upload.fragments = []
        self._collect()

    def wants_compaction(self) -> bool:
        """Whether there are many small fragments, or many deleted items."""
        fragments = [fragment.metadata for fragment in self._current.dataset.get_fragments()]
        physical = sum(fragment.physical_rows for fragment in fragments)
        small = sum(fragment.physical_rows < _FRAGMENT_ROWS for fragment in fragments)
        # A small pool is rewritten so fast, and fills so few files, that only the count matters there.
        deleted = physical - self._current.count
        return small > _MAX_SMALL_FRAGMENTS or deleted > max(_MAX_DELETED_SHARE * physical, 1024)

    def compact(self) -> None:
        """Rewrite small fragments and those with deleted items, keeping the order."""
        options: Any = {
            "target_rows_per_fragment": _FRAGMENT_ROWS,
            "materialize_deletions": True,
            "materialize_deletions_threshold": 0.1,
            "num_threads": 1,
        }
        dataset = self._open(self.version)
        plan = Compaction.plan(dataset, options)
        if not plan.num_tasks():
            return
        with self._writing, self._all_or_nothing("compaction"):
            Compaction.commit(dataset, [task.execute(dataset) for task in plan.tasks])
            sync_files(self._layout.root / name for name in self._layout.files_of(dataset) - self._current.files)
            reach("index.compact.after_data")
            self._install(dataset, "compact")
        self._collect()

    def close(self) -> None:
        """Write nothing from now on. No file is held open."""
        with self._writing:
            self._closed = True

    def to_batch(self, records: Records) -> pa.RecordBatch:
        """Return items as the store's columns."""
        if records.vectors is None:
            raise ValueError("items without vectors cannot be stored")
        payloads = records.payloads or PayloadColumns.blank(len(records))
        field = self._schema.field("vector")
        flat = pa.array(np.ascontiguousarray(records.vectors).reshape(-1), field.type.value_type)
        columns = [
            pa.array(records.ids, pa.string()),
            pa.FixedSizeListArray.from_arrays(flat, type=field.type),
            *(pa.array(c, pa.string()) for c in (payloads.texts, payloads.uris, payloads.metadata_json)),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def write_uncommitted(self, batches: list[pa.RecordBatch]) -> list[Any]:
        """Write data files that no version names, and return their fragments. All or none of them stay."""
        with self._writing, full_disk_is_exhaustion("the items", self._layout.root):
            self._check_open()  # Lance would make the directories of a deleted pool again
            written = False
            try:
                reader = pa.RecordBatchReader.from_batches(self._schema, batches)
                fragments: list[Any] = write_fragments(reader, self._current.dataset)
                written = True
            finally:
                if not written:
                    self._remove_orphans()
            self._uncommitted |= self._layout.files_of_fragments(fragments)
            return fragments

    def sync_uncommitted(self, fragments: list[Any]) -> None:
        """Sync the data files of `fragments`."""
        with self._writing:
            self._check_open()
        with full_disk_is_exhaustion("the items", self._layout.root):
            sync_files(self._layout.root / name for name in self._layout.files_of_fragments(fragments))

    def remove_uncommitted(self, fragments: list[Any]) -> None:
        """Remove the data files of `fragments`, unless a version may name them that can only be known once opened."""
        with self._writing:
            if self._closed:
                return
            for name in self._layout.files_of_fragments(fragments):
                (self._layout.root / name).unlink(missing_ok=True)
            self._forget_uncommitted(fragments)

    def _forget_uncommitted(self, fragments: list[Any]) -> None:
        with self._writing:
            self._uncommitted -= self._layout.files_of_fragments(fragments)

    def _open(self, version: int) -> lance.LanceDataset:
        return lance.dataset(
            self._layout.root,
            version=version,
            metadata_cache_size_bytes=_METADATA_CACHE_BYTES,
            index_cache_size_bytes=0,
        )

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the pool is being closed", field="pool")

    def _install(self, dataset: lance.LanceDataset, operation: str) -> None:
        """Make `dataset`, committed in Lance and its data synced, the version that counts."""
        sync_files(self._layout.commit_files(dataset.version))
        sync_directory(self._layout.root)
        snapshot = LanceSnapshot(dataset, self._layout.files_of(dataset))
        reach(f"index.{operation}.after_commit")
        write_durably(self._head, _head_bytes(snapshot.version))
        reach(f"index.{operation}.after_head")
        self._current = snapshot
        self._retain(snapshot)

    @contextmanager
    def _all_or_nothing(self, what: str) -> Iterator[None]:
        before = self._current
        with full_disk_is_exhaustion(what, self._layout.root):
            try:
                yield
            finally:
                if self._current is before:
                    self._closed = True  # and stays so if this fails too
                    self._roll_back()
                    self._closed = False

    def _roll_back(self) -> None:
        """Go back to the current version after a failure, unless HEAD names a later one already."""
        try:
            head = _read_head(self._head)
            if head == self.version:
                self._forget_later_versions()
        except (OSError, ValueError, FailedPrecondition) as error:
            raise OutcomeUnknown(f"{self._head}: rolling back failed") from error
        if head != self.version:
            raise OutcomeUnknown(f"{self._head} was replaced, and cannot be known to be on disk")

    def _forget_later_versions(self) -> None:
        self._layout.discard_after(self.version)
        # Opened anew, lest Lance's cache remember the manifests that are gone.
        self._current.dataset = self._open(self.version)
        with self._writing:
            self._remove_orphans()

    def _retain(self, snapshot: LanceSnapshot) -> None:
        self._retained[snapshot.version] = (weakref.ref(snapshot), snapshot.files)

    def _collect(self) -> None:
        """Remove versions that nobody reads any more, and the files that only they needed.

        What cannot be removed now is removed when the store is opened again.
        """
        with contextlib.suppress(OSError):
            self._remove_unread()

    def _remove_unread(self) -> None:
        retained = {
            version: (reference, files)
            for version, (reference, files) in self._retained.items()
            if reference() is not None or version == self.version
        }
        gone = set[str]().union(*(files for _, files in self._retained.values()))
        gone -= set[str]().union(*(files for _, files in retained.values()))
        for version, path in self._layout.manifests().items():
            if version not in retained:
                path.unlink()
                for transaction in self._layout.transactions(version):
                    transaction.unlink()
        for name in gone:
            (self._layout.root / name).unlink(missing_ok=True)
        self._retained = retained

    def _remove_orphans(self) -> None:
        """Remove data and deletion files that neither a retained version nor an upload names."""
        named = self._uncommitted.union(*(files for _, files in self._retained.values()))
        for directory in ("data", "_deletions"):
            for path in (self._layout.root / directory).iterdir():
                if f"{directory}/{path.name}" not in named:
                    path.unlink()


def _columns(*, vectors: bool, payloads: bool) -> list[str]:
    return ["id", *(["vector"] if vectors else []), *(_PAYLOAD_COLUMNS if payloads else [])]


def _to_records(data: pa.RecordBatch | pa.Table) -> Records:
    names = data.schema.names
    vectors = payloads = None
    if "vector" in names:
        vectors = _to_matrix(data.column("vector"), data.schema.field("vector").type.list_size)
    if "text" in names:
        texts, uris, metadata = (data.column(name).to_pylist() for name in _PAYLOAD_COLUMNS)
        payloads = PayloadColumns(texts=texts, uris=uris, metadata_json=metadata)
    ids = [ItemId(item_id) for item_id in data.column("id").to_pylist()]
    return Records(ids=ids, vectors=vectors, payloads=payloads)


def _to_matrix(column: Any, dimension: int) -> Any:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, dimension)


def _delete(dataset: lance.LanceDataset, addresses: Addresses) -> tuple[list[int], list[Any]]:
    """Write deletion files for `addresses`; return the fragments that become empty, and the others changed."""
    removed, updated = [], []
    fragment_ids = addresses >> np.uint64(32)
    offsets = addresses & np.uint64(0xFFFFFFFF)
    for fragment_id in np.unique(fragment_ids).tolist():
        chosen = offsets[fragment_ids == fragment_id].tolist()
        fragment: Any = dataset.get_fragment(fragment_id)
        fragment = fragment.delete_rows(chosen)
        if fragment is None:
            removed.append(fragment_id)
        else:
            updated.append(fragment)
    return removed, updated


def _head_bytes(version: int) -> bytes:
    return json.dumps({"version": version}).encode()


def _read_head(path: Path) -> int:
    try:
        return int(json.loads(path.read_bytes())["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(f"{path.name} cannot be read: {error}") from error
