"""A pool's items in a Lance data set.

Lance writes a new manifest for each version but syncs nothing. So a version counts only when HEAD, a small file of our
own, names it, and HEAD is replaced only after every file of that version was synced. What lies beyond HEAD when a store
is opened, torn or whole, was never acknowledged, and is removed.
"""

import contextlib
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import lance
import numpy as np
import pyarrow as pa
from lance.fragment import write_fragments

from index_server.ports import Addresses, OutcomeUnknown, Upload
from index_server.records import FloatMatrix
from index_server.spec import VectorType
from index_server.store.compaction import (
    Group,
    Rewrite,
    batches_of,
    file_rows,
    groups_to_purge,
    groups_to_rewrite,
    mergeable_fragments,
)
from index_server.store.deletion import delete_items
from index_server.store.head import head_bytes, read_head
from index_server.store.lance_snapshot import LanceSnapshot
from index_server.store.layout import DIRECTORIES, LanceLayout
from index_server.store.upload import LanceUpload, UploadFiles
from index_server.store.vector_pages import read_vectors
from index_server.store.write_gate import WriteGate
from sealpool.durable import full_disk_is_exhaustion, sync_directory, sync_files, sync_tree, write_durably
from sealpool.errors import FailedPrecondition
from sealpool.failpoint import reach

_PAYLOAD_COLUMNS: Final = ["text", "uri", "metadata_json"]
_MAX_FILE_ROWS: Final = 1 << 20
_MAX_SMALL_FRAGMENTS: Final = 64
_MAX_DELETED_SHARE: Final = 0.25
_METADATA_CACHE_BYTES: Final = 64 << 20


class LanceStore:
    """The items of one pool in `directory`: the data set `items.lance`, and HEAD."""

    def __init__(self, directory: Path, *, version: int) -> None:
        self._head = directory / "HEAD"
        self._layout = LanceLayout(directory / "items.lance")
        # Files are written inside the gate, until a version or `_uncommitted` names them.
        self._gate = WriteGate(self._remove_orphans)
        self._uncommitted: set[str] = set()
        self._layout.discard_after(version)
        self._current = self._snapshot_of(self._open(version))
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
            for name in DIRECTORIES:
                (root / name).mkdir(parents=True)
            dataset = lance.write_dataset(schema.empty_table(), root, mode="create")
            sync_tree(root)
            write_durably(directory / "HEAD", head_bytes(dataset.version))

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
        store = cls(directory, version=read_head(directory / "HEAD"))
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
        files = UploadFiles(
            schema=self._schema,
            write=self._write_uncommitted,
            read=self._read_uncommitted,
            remove=self._remove_uncommitted,
        )
        return LanceUpload(files)

    def commit(self, uploads: Sequence[Upload], superseded: Addresses) -> None:
        """Commit new items and deletions as one version."""
        ours = [upload for upload in uploads if isinstance(upload, LanceUpload)]
        fragments = [fragment for upload in ours for fragment in upload.fragments]
        dataset = self._current.dataset
        with self._gate.writing(), self._all_or_nothing("a change of the pool"):
            removed, updated = delete_items(dataset, superseded)
            self._sync_new(self._layout.files_of_fragments(updated))
            reach("index.upsert.after_data")
            operation = lance.LanceOperation.Update(removed, updated, fragments, [])
            self._install(lance.LanceDataset.commit(dataset, operation, read_version=dataset.version), "upsert")
        self._uncommitted -= self._layout.files_of_fragments(fragments)
        for upload in ours:
            upload.fragments = []
        self._collect()

    def wants_compaction(self) -> bool:
        """Whether there are many small fragments, or many deleted items."""
        dataset = self._current.dataset
        physical = sum(fragment.physical_rows for fragment in dataset.get_fragments())
        # A small pool is rewritten so fast, and fills so few files, that only the count matters there.
        deleted = physical - self._current.count
        too_many = max(_MAX_DELETED_SHARE * physical, 1024)
        return deleted > too_many or mergeable_fragments(dataset) > _MAX_SMALL_FRAGMENTS

    def prepare_compaction(self, budget_bytes: int) -> Rewrite | None:
        """Write small fragments and those with deleted items anew, beside those that count."""
        snapshot = self._current
        return self._rewritten(snapshot, groups_to_rewrite(snapshot.dataset, budget_bytes))

    def prepare_purge(self, budget_bytes: int) -> Rewrite | None:
        """Write fragments with deleted items anew, without those, beside the ones that count."""
        snapshot = self._current
        return self._rewritten(snapshot, groups_to_purge(snapshot.dataset, budget_bytes))

    def _rewritten(self, snapshot: LanceSnapshot, chosen: Sequence[Sequence[Any]]) -> Rewrite | None:
        groups: list[Group] = []
        written = False
        try:
            for old in chosen:
                new = self._write_uncommitted(batches_of(snapshot.dataset, old), file_rows=file_rows(old, self._schema))
                groups.append(Group(old=old, new=new))
            written = True
        finally:
            if not written:
                self._remove_uncommitted([fragment for group in groups for fragment in group.new])
        return Rewrite(snapshot=snapshot, groups=groups) if groups else None

    def commit_compaction(self, rewrite: object) -> bool:
        """Put what was rewritten in its place, keeping the order."""
        if not isinstance(rewrite, Rewrite):
            raise TypeError("a rewrite is what prepare_compaction returned")
        current = self._current
        if not rewrite.still_fits(current):
            self._remove_uncommitted(rewrite.new_fragments)
            return False
        committed = False
        try:
            with self._gate.writing(), self._all_or_nothing("compaction"):
                reach("index.compact.after_data")
                operation = rewrite.operation()
                version = current.version
                self._install(lance.LanceDataset.commit(current.dataset, operation, read_version=version), "compact")
            committed = True
        finally:
            if not committed:
                self._remove_uncommitted(rewrite.new_fragments)
        self._uncommitted -= self._layout.files_of_fragments(rewrite.new_fragments)
        self._collect()
        return True

    def collect(self, *, before: int) -> bool:
        """Remove earlier versions and the files that only they needed."""
        self._collect()
        return min({*self._retained, *self._layout.manifests()}) >= before

    def close(self) -> None:
        """Write nothing from now on. No file is held open."""
        self._gate.close()

    def _write_uncommitted(self, batches: Iterable[pa.RecordBatch], *, file_rows: int = _MAX_FILE_ROWS) -> list[Any]:
        """Write data files that no version names, sync them and return their fragments. All or none of them stay."""
        # Lance would make the directories of a deleted pool again: hence inside the gate, which is closed before.
        with self._gate.writing(), full_disk_is_exhaustion("the items", self._layout.root):
            reader = pa.RecordBatchReader.from_batches(self._schema, batches)
            fragments: list[Any] = write_fragments(reader, self._current.dataset, max_rows_per_file=file_rows)
            names = self._layout.files_of_fragments(fragments)
            self._sync_new(names)
            self._uncommitted |= names
            return fragments

    def _read_uncommitted(self, fragments: Sequence[Any]) -> Iterator[FloatMatrix]:
        vector = self._schema.field("vector").type
        dtype = np.dtype(vector.value_type.to_pandas_dtype())
        for fragment in fragments:
            for file in fragment.files:
                path = self._layout.root / "data" / file.path
                yield from read_vectors(path, "vector", vector.list_size, dtype)

    def _remove_uncommitted(self, fragments: list[Any]) -> None:
        """Remove the data files of `fragments`, unless a version may name them that can only be known once opened."""
        names = self._layout.files_of_fragments(fragments)
        with self._gate.removing() as allowed:
            if allowed:
                for name in names:
                    (self._layout.root / name).unlink(missing_ok=True)
                self._uncommitted -= names

    def _sync_new(self, names: frozenset[str]) -> None:
        sync_files(self._layout.root / name for name in names - self._current.files)

    def _snapshot_of(self, dataset: lance.LanceDataset) -> LanceSnapshot:
        return LanceSnapshot(dataset, root=self._layout.root, files=self._layout.files_of(dataset))

    def _open(self, version: int) -> lance.LanceDataset:
        return lance.dataset(
            self._layout.root,
            version=version,
            metadata_cache_size_bytes=_METADATA_CACHE_BYTES,
            index_cache_size_bytes=0,
        )

    def _install(self, dataset: lance.LanceDataset, operation: str) -> None:
        """Make `dataset`, committed in Lance and its data synced, the version that counts."""
        sync_files(self._layout.commit_files(dataset.version))
        sync_directory(self._layout.root)
        snapshot = self._snapshot_of(dataset)
        reach(f"index.{operation}.after_commit")
        write_durably(self._head, head_bytes(snapshot.version))
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
                    self._roll_back()

    def _roll_back(self) -> None:
        """Go back to the current version after a failure, unless HEAD names a later one already."""
        certain = False
        try:
            certain = read_head(self._head) == self.version
            if certain:
                self._forget_later_versions()
        except (OSError, ValueError, FailedPrecondition) as error:
            certain = False
            raise OutcomeUnknown(f"{self._head}: rolling back failed") from error
        finally:
            if not certain:
                self._gate.shut()
        if not certain:
            raise OutcomeUnknown(f"{self._head} was replaced, and cannot be known to be on disk")

    def _forget_later_versions(self) -> None:
        self._layout.discard_after(self.version)
        # Opened anew, lest Lance's cache remember the manifests that are gone.
        self._current.dataset = self._open(self.version)

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
                    path.unlink(missing_ok=True)
