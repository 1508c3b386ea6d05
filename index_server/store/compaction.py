"""Which fragments to rewrite, and into what."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import lance
import pyarrow as pa

from index_server.store.lance_snapshot import LanceSnapshot

_FRAGMENT_BYTES: Final = 64 << 20
_MAX_FRAGMENT_ROWS: Final = 131_072
_MAX_DELETED_SHARE_OF_ONE: Final = 0.1
_READ_BYTES: Final = 8 << 20


@dataclass(frozen=True, kw_only=True)
class Group:
    """Neighbouring fragments, and those that are to stand in their place."""

    old: Sequence[Any]
    new: Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Rewrite:
    """A compaction that is written and not committed. It keeps the files of its snapshot on disk."""

    snapshot: LanceSnapshot
    groups: Sequence[Group]

    @property
    def new_fragments(self) -> list[Any]:
        """All that was written."""
        return [fragment for group in self.groups for fragment in group.new]

    def operation(self) -> Any:
        """Return what is to be committed.

        Lance keeps fragments in the order of their ids, and gives those of its own Rewrite new ids, which would move
        old items behind all others. So what is new takes ids of what it stands for, and is an update of those.
        """
        removed: list[int] = []
        updated: list[Any] = []
        for group in self.groups:
            ids = [old.id for old in group.old]
            if len(group.new) > len(ids):
                raise RuntimeError(f"{len(ids)} fragments became {len(group.new)}")
            updated += [replace(new, id=number) for new, number in zip(group.new, ids, strict=False)]
            removed += ids[len(group.new) :]
        return lance.LanceOperation.Update(removed, updated, [], [])

    def still_fits(self, current: LanceSnapshot) -> bool:
        """Whether every fragment that was rewritten is still there, and no item of it was deleted since."""
        now = {fragment.metadata.id: fragment.metadata for fragment in current.dataset.get_fragments()}
        return all(now.get(old.id) == old for group in self.groups for old in group.old)


def target_rows(schema: pa.Schema) -> int:
    """Return how many items a fragment is to have: what an upload writes as one part, within bounds."""
    vector = schema.field("vector").type
    return max(1, min(_MAX_FRAGMENT_ROWS, _FRAGMENT_BYTES // row_bytes(vector)))


def file_rows(old: Sequence[Any], schema: pa.Schema) -> int:
    """Return how many items a file of what stands for `old` may have, so that there are not more of them."""
    rows = sum(live_rows(fragment) for fragment in old)
    return max(2 * target_rows(schema), -(-rows // len(old)))


def row_bytes(vector_type: Any) -> int:
    """Return the bytes of one vector."""
    return int(vector_type.list_size * vector_type.value_type.bit_width) // 8


def mergeable_fragments(dataset: lance.LanceDataset) -> int:
    """Return how many fragments could become part of a larger one: those that lie between large ones cannot."""
    return sum(len(run) for run in _runs(dataset, target_rows(dataset.schema)) if len(run) > 1)


def groups_to_rewrite(dataset: lance.LanceDataset, budget_bytes: int) -> list[list[Any]]:
    """Return runs of neighbouring fragments whose items take about `budget_bytes` in all, at least one run if any."""
    target = target_rows(dataset.schema)
    budget_rows = budget_bytes // row_bytes(dataset.schema.field("vector").type)
    groups: list[list[Any]] = []
    rows = 0
    for run in _runs(dataset, target):
        chosen: list[Any] = []
        for fragment in run:
            if rows >= budget_rows and (groups or len(chosen) >= _enough(chosen)):
                break
            chosen.append(fragment)
            rows += live_rows(fragment)
        if chosen and len(chosen) >= _enough(chosen):
            groups.append(chosen)
        if rows >= budget_rows and groups:
            break
    return groups


def groups_to_purge(dataset: lance.LanceDataset, budget_bytes: int) -> list[list[Any]]:
    """Return fragments with deleted items, each by itself, of about `budget_bytes` in all, at least one if any."""
    budget_rows = budget_bytes // row_bytes(dataset.schema.field("vector").type)
    groups: list[list[Any]] = []
    rows = 0
    for fragment in dataset.get_fragments():
        if _deleted_rows(fragment.metadata) and (rows < budget_rows or not groups):
            groups.append([fragment.metadata])
            rows += live_rows(fragment.metadata)
    return groups


def batches_of(dataset: lance.LanceDataset, fragments: Sequence[Any]) -> Iterator[pa.RecordBatch]:
    """Read the live items of `fragments` in order."""
    rows = max(1, _READ_BYTES // row_bytes(dataset.schema.field("vector").type))
    by_id: dict[int, Any] = {fragment.fragment_id: fragment for fragment in dataset.get_fragments()}
    for metadata in fragments:
        yield from by_id[metadata.id].to_batches(batch_size=rows)


def live_rows(fragment: Any) -> int:
    """Return how many items of a fragment are not deleted."""
    return int(fragment.physical_rows) - _deleted_rows(fragment)


def _deleted_rows(fragment: Any) -> int:
    return 0 if fragment.deletion_file is None else int(fragment.deletion_file.num_deleted_rows)


def _runs(dataset: lance.LanceDataset, target: int) -> Iterator[list[Any]]:
    """Return runs of fragments that are small or have many deleted items.

    Half the target is no longer small, lest a merged one be merged again with each that arrives.
    """
    run: list[Any] = []
    for fragment in dataset.get_fragments():
        metadata = fragment.metadata
        if metadata.physical_rows < target // 2 or _has_many_deleted(metadata):
            run.append(metadata)
            continue
        yield run
        run = []
    yield run


def _has_many_deleted(fragment: Any) -> bool:
    return bool(_deleted_rows(fragment) > _MAX_DELETED_SHARE_OF_ONE * fragment.physical_rows)


def _enough(run: Sequence[Any]) -> int:
    """Return from how many fragments on a run is worth rewriting: one, if it has many deleted items."""
    return 1 if any(map(_has_many_deleted, run)) else 2
