"""How a pool's items change: small changes that wait share one commit."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Final

import numpy as np

from index_server.answers import Changed
from index_server.candidates.state import Named
from index_server.concurrency import error_like
from index_server.incoming import receive
from index_server.index import Arrivals
from index_server.pool_state import PoolState
from index_server.ports import OutcomeUnknown, Rows, Upload
from index_server.records import FloatMatrix, Records
from sealpool.types import ItemId

_HOLD_S: Final = 0.005
"""How long searches may be held up by items that enter the engine."""
_FIRST_ROWS: Final = 128
_MAX_ROWS: Final = 16_384
_GROUP_ITEMS: Final = 100_000
"""Changes are grouped up to so many items: beyond it nothing is won, and the first would wait for the last."""


class _Request:
    """One caller's change, waiting for its turn or done."""

    def __init__(self, upload: Upload | None, ids: list[ItemId], deleted: Sequence[ItemId]) -> None:
        self.upload = upload
        self.ids = ids
        self.deleted = deleted
        self.changed: Changed | None = None
        self.error: BaseException | None = None

    @property
    def touched(self) -> Sequence[ItemId]:
        return self.ids or self.deleted

    @property
    def settled(self) -> bool:
        return self.changed is not None or self.error is not None

    def outcome(self) -> Changed:
        if self.error is not None:
            raise self.error
        if self.changed is None:
            raise RuntimeError("a change ended without an outcome")
        return self.changed


class PoolWriter:
    """Adds, replaces and deletes the items of one pool.

    Who gets the writer's lock commits the changes of all who wait for it, as one version of the pool: writing HEAD and
    syncing directories takes longer than all else in a small change.

    Threads: any.

    Parameters
    ----------
    quiet_s
        How long after an upload another is expected.
    on_change
        Called after each change.
    """

    def __init__(self, state: PoolState, *, quiet_s: float, on_change: Callable[[], None]) -> None:
        self._quiet_s = quiet_s
        self._state = state
        self._on_change = on_change
        self._guard = threading.Lock()
        self._waiting: deque[_Request] = deque()
        self._uploads = 0
        self._last_upload_s = float("-inf")

    @property
    def is_busy(self) -> bool:
        """Whether an upload is under way or ended a moment ago: another may follow."""
        return self._uploads > 0 or time.monotonic() - self._last_upload_s < self._quiet_s

    def upsert(self, batches: Iterable[Records]) -> Changed:
        """Add items or replace them: see Pool.upsert."""
        state = self._state
        state.watermarks.check_write()
        with self._guard:
            self._uploads += 1
        try:
            upload = state.store.begin()
            try:
                ids = receive(state.spec, batches, upload, max_rows=state.limits.max_upsert_rows)
                if not ids:
                    return Changed(version=state.snapshot.version)
                upload.finish()
                return self._submit(_Request(upload, ids, []))
            finally:
                upload.abort()
        finally:
            with self._guard:
                self._uploads -= 1
                self._last_upload_s = time.monotonic()
            self._on_change()

    def delete(self, ids: Sequence[ItemId]) -> Changed:
        """Delete items: see Pool.delete."""
        changed = self._submit(_Request(None, [], ids))
        self._on_change()
        return changed

    def _submit(self, request: _Request) -> Changed:
        with self._guard:
            self._waiting.append(request)
        with self._state.writer:
            while not request.settled:
                self._commit_group(self._next_group())
        return request.outcome()

    def _next_group(self) -> list[_Request]:
        """Take those first in the queue that touch different items."""
        group: list[_Request] = []
        seen: set[ItemId] = set()
        with self._guard:
            if len(self._waiting) == 1:
                return [self._waiting.popleft()]
            while self._waiting:
                touched = self._waiting[0].touched
                if group and (len(seen) + len(touched) > _GROUP_ITEMS or not seen.isdisjoint(touched)):
                    break
                seen.update(touched)
                group.append(self._waiting.popleft())
        return group

    def _commit_group(self, group: list[_Request]) -> None:
        try:
            self._state.check_open()
            self._change(group)
        except BaseException as error:
            plain = error if isinstance(error, Exception) else RuntimeError("the commit was cut off")
            for request in group:
                request.error = error_like(plain)
            if plain is not error:
                raise

    def _change(self, group: list[_Request]) -> None:
        state, table = self._state, self._state.index.table
        ids = [item_id for request in group for item_id in request.ids]
        old_rows = table.find(ids)
        deleted = [item_id for request in group for item_id in request.deleted]
        lost = Named(ids=deleted, rows=table.find(deleted))
        lost = lost.where(lost.rows >= 0)
        if ids or len(lost):
            uploads = [request.upload for request in group if request.upload is not None]
            # Taken now, so that nothing can fail for want of disk once the store has the change.
            staged_in_vain = state.index.engine.size - table.rows
            table.reserve(staged_in_vain + len(ids), text_bytes=sum(len(item_id.encode()) for item_id in ids))
            arrivals = self._stage(len(ids), (part for upload in uploads for part in upload.vectors()))
            with state.gate.write():
                self._commit(uploads, ids, old_rows, arrivals, lost)
        self._settle(group, old_rows, {*lost.ids})

    def _stage(self, count: int, vectors: Iterable[FloatMatrix]) -> Arrivals:
        """Let `count` items into the engine, searches going on between a few and the next few."""
        if count > _MAX_ROWS:
            with self._state.view.write():
                self._state.index.engine.reserve(count)
        arrivals = self._state.index.arrivals()
        rows = _FIRST_ROWS
        for part in vectors:
            start = 0
            while start < len(part):
                some = part[start : start + rows]
                self._state.index.engine.make_room(len(some))  # before the lock: searches go on while it waits
                begun = time.perf_counter()
                with self._state.view.write():
                    self._state.index.stage(arrivals, some)
                start += rows
                quick = time.perf_counter() - begun < _HOLD_S
                rows = min(2 * rows, _MAX_ROWS) if quick else max(rows // 2, _FIRST_ROWS)
        return arrivals

    def _commit(
        self, uploads: Sequence[Upload], ids: list[ItemId], old_rows: Rows, arrivals: Arrivals, lost: Named
    ) -> None:
        state, table = self._state, self._state.index.table
        replaced = old_rows[old_rows >= 0]
        gone = np.concatenate([replaced, lost.rows])
        new_rows = np.arange(arrivals.first, arrivals.first + len(ids))
        with state.following_up():
            following = state.campaigns.follow(
                table,
                pool_version=state.store.version + 1,
                upserted=Named(ids=ids, rows=old_rows),
                new_rows=new_rows,
                lost=lost,
            )
            if state.graph is not None:
                state.graph.record(state.store.version + 1, appended=len(ids), retired=gone)
            with state.failing_on(OutcomeUnknown, "a change of items"), self._committing(len(ids), len(lost)):
                state.store.commit(uploads, table.addresses_at(gone))
        with state.failing_on(BaseException, "a change of items"):
            snapshot = state.store.snapshot()
            addresses = snapshot.addresses(last=len(ids))
            with state.view.write():
                state.index.remove(gone)
                state.index.publish(arrivals, ids, addresses)
                state.snapshot = snapshot
                state.campaigns.apply(following)
                if state.graph is not None:
                    state.graph.apply(new_rows)

    def _committing(self, upserted: int, deleted: int) -> AbstractContextManager[object]:
        index = self._state.index
        return index.settings.tracer.span("store.commit", pool=index.spec.name, upserted=upserted, deleted=deleted)

    def _settle(self, group: list[_Request], old_rows: Rows, lost: set[ItemId]) -> None:
        version, start = self._state.snapshot.version, 0
        for request in group:
            replaced = int((old_rows[start : start + len(request.ids)] >= 0).sum())
            start += len(request.ids)
            deleted = len(lost.intersection(request.deleted))
            request.changed = Changed(
                version=version,
                inserted=len(request.ids) - replaced,
                replaced=replaced,
                deleted=deleted,
                missing=len(request.deleted) - deleted,
            )
