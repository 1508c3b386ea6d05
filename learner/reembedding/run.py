"""One re-embedding: pass after pass over the source, until the target lacks nothing."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from learner.encoders import EmbedOptions
from learner.reembedding.index_port import WritableIndex
from learner.text_encoder import TextEncoder
from sealpool import failpoint
from sealpool.errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from sealpool.types import ItemId, Items, Payload
from sealpool.v1 import index_pb2

T = TypeVar("T")

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0


@dataclass(kw_only=True, slots=True)
class Progress:
    """How far a run is."""

    items: int = 0
    done: int = 0
    embedded: int = 0


@dataclass(kw_only=True, slots=True)
class _Pass:
    """What one pass over the source found."""

    present: int = 0
    embedded: int = 0
    ids: list[ItemId] = field(default_factory=list)
    payloads: list[Payload] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Reembedding:
    """Every item of the pool `source` into the pool `target`, with new vectors.

    Parameters
    ----------
    target, dimension
        The target pool, and of which dimension it is to be made if it is not there.
    owns_target
        Whether everything in the target came from the source, so that what the source lost is deleted from it.
    batch_items
        Items embedded and uploaded at once: what a kill costs.
    stopped
        Set where the run is to end early; also ends waiting.
    progress
        Called when something changed.
    """

    index: WritableIndex
    encoder: TextEncoder
    options: EmbedOptions
    source: str
    target: str
    dimension: int
    owns_target: bool
    alias: str
    batch_items: int
    stopped: threading.Event
    progress: Callable[[Progress], None]
    told: Progress = field(default_factory=Progress)

    def run(self) -> None:
        """Embed what the target lacks, or has with another text, until a pass finds nothing; then set the alias.

        Waits for an index server that is away, for as long as that takes.

        Raises
        ------
        FailedPrecondition
            Items of the source have no text.
        NotFound
            A pool is gone.
        Cancelled
            `stopped` was set.
        """
        self._patiently(self._begin)
        while self._patiently(self._pass):
            pass
        if self.owns_target:
            self._patiently(self._forget_deleted)
        failpoint.reach("learner.reembed.before_alias")
        if self.alias:
            self._patiently(lambda: self.index.set_alias(self.alias, self.target))
        failpoint.reach("learner.reembed.before_finished")

    def _begin(self) -> None:
        """Make the target, and find items without text before hours are spent on those with one."""
        source = self.index.get_pool(self.source)
        self.told.items = source.size
        textless, example = 0, ""
        for items in self._scan(self.source, payloads=True):
            for item_id, payload in _with_payloads(items):
                if not _has_text(payload):
                    textless, example = textless + 1, example or item_id
        if textless:
            raise _without_text(textless, example)
        self._make_target(source.spec)

    def _make_target(self, like: index_pb2.PoolSpec) -> None:
        try:
            self.index.get_pool(self.target)
        except NotFound:
            spec = index_pb2.PoolSpec()
            spec.CopyFrom(like)
            spec.name, spec.dimension = self.target, self.dimension
            spec.ClearField("source")  # of a data set that is read where it lies
            spec.options.pq_subquantizers = 0  # they must divide the dimension
            # It exists where the answer was lost.
            with suppress(AlreadyExists):
                self.index.create_pool(spec)

    def _pass(self) -> int:
        """Go once over the source; return how many items were embedded."""
        found = _Pass()
        for items in self._scan(self.source, payloads=True):
            self._take(items, found)
            while len(found.ids) >= self.batch_items:
                self._embed(found)
        while found.ids:
            self._embed(found)
        return found.embedded

    def _take(self, items: Items, found: _Pass) -> None:
        """Put the items of a page that the target lacks to those that wait for a batch."""
        there = self.index.get_items(self.target, items.ids, vectors=False, payloads=True, allow_missing=True)
        texts = {item_id: payload.text for item_id, payload in _with_payloads(there)}
        for item_id, payload in _with_payloads(items):
            if texts.get(item_id) == payload.text:
                found.present += 1
            else:
                found.ids.append(item_id)
                found.payloads.append(payload)
        self._tell(found)

    def _embed(self, found: _Pass) -> None:
        size = self.batch_items
        ids, payloads = found.ids[:size], found.payloads[:size]
        textless = [i for i, payload in zip(ids, payloads, strict=True) if not _has_text(payload)]
        if textless:
            raise _without_text(len(textless), textless[0])
        texts = [payload.text for payload in payloads]
        vectors = self.encoder.embed(texts, self.options, cancelled=self.stopped.is_set)
        # What was deleted or replaced while it was embedded must not come back; the next pass takes the new text.
        now = self.index.get_items(self.source, ids, vectors=False, payloads=True, allow_missing=True)
        row_of = {item_id: row for row, item_id in enumerate(ids)}
        fresh = [(row_of[i], payload) for i, payload in _with_payloads(now) if payload.text == texts[row_of[i]]]
        rows = [row for row, _ in fresh]
        failpoint.reach("learner.reembed.before_upsert")
        if rows:
            batch = Items(
                ids=[ids[row] for row in rows], vectors=vectors[rows], payloads=[payload for _, payload in fresh]
            )
            self.index.upsert(self.target, batch)
        failpoint.reach("learner.reembed.after_upsert")
        del found.ids[:size], found.payloads[:size]
        found.embedded += len(ids)
        self.told.embedded += len(ids)
        self._tell(found)

    def _forget_deleted(self) -> None:
        """Delete from the target what was deleted from the source since it was embedded."""
        for items in self._scan(self.target, payloads=False):
            left = set(self.index.get_items(self.source, items.ids, vectors=False, allow_missing=True).ids)
            gone = [item_id for item_id in items.ids if item_id not in left]
            if gone:
                self.index.delete_items(self.target, gone)

    def _tell(self, found: _Pass) -> None:
        self.told.done = max(self.told.done, found.present + found.embedded)
        self.told.items = max(self.told.items, self.told.done)
        self.progress(self.told)

    def _scan(self, pool: str, *, payloads: bool) -> Iterator[Items]:
        for items in self.index.scan_items(pool, vectors=False, payloads=payloads):
            if self.stopped.is_set():
                raise Cancelled("the job was stopped")
            yield items

    def _patiently(self, work: Callable[[], T]) -> T:
        """Begin `work` again each time that the index server is away or full, with longer pauses while none gets on."""
        pause_s = _FIRST_PAUSE_S
        while True:
            embedded = self.told.embedded
            try:
                return work()
            except (Unavailable, DeadlineExceeded, ResourceExhausted) as error:
                wanted_s = _wanted_pause_s(error)
            if self.told.embedded > embedded:
                pause_s = _FIRST_PAUSE_S
            if self.stopped.wait(max(pause_s, wanted_s)):
                raise Cancelled("the job was stopped")
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _wanted_pause_s(error: Unavailable | DeadlineExceeded | ResourceExhausted) -> float:
    """Return how long the server asks to wait; raise the error again where waiting is no help."""
    if isinstance(error, DeadlineExceeded):
        return 0.0
    if error.retry_after_s is None and isinstance(error, ResourceExhausted):
        raise error
    return error.retry_after_s or 0.0


def _with_payloads(items: Items) -> Iterator[tuple[ItemId, Payload]]:
    return zip(items.ids, items.payloads or (), strict=True)


def _has_text(payload: Payload) -> bool:
    return bool(payload.text.strip())


def _without_text(items: int, example: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{items:,} items of the source have no text, {example!r} for one: there is nothing to embed",
        field="source_pool",
    )
