"""Pick a batch while the candidate pool grows after each pick: seals with CANDIDATE_GROWTH_PICK."""

import heapq
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import Final

from learner.candidates import Candidates
from learner.index_port import CandidateUpdate
from learner.ports import CancelCheck
from learner.scoring import ScoredItem, Scorer
from learner.sources import CandidateSource
from sealpool.errors import Cancelled, NotFound
from sealpool.types import ItemId

Preview = Callable[[ItemId], CandidateUpdate]
"""Asks what a labelled item would bring, NotFound if the pool has lost it. Called from many threads at once."""

_ASKED_AT_ONCE: Final = 8
"""Previews asked for ahead. The index server merges searches that wait for one another; what is asked for and not
picked in the end has cost it a search, which happens to fewer than this many in a batch."""

_Entry = tuple[tuple[float, int, ItemId], ScoredItem]


@dataclass(frozen=True, kw_only=True, slots=True)
class GrownBatch:
    """The picks, best first, and the seconds spent waiting for previews."""

    items: list[ScoredItem]
    preview_seconds: float


def pick_growing(
    source: CandidateSource,
    scorer: Scorer,
    preview: Preview,
    *,
    count: int,
    barred: set[ItemId],
    cancelled: CancelCheck,
    clock: Callable[[], float],
) -> GrownBatch:
    """Return the best `count` items but those `barred`, each chosen among the held candidates and what picks brought.

    What a pick brings depends on the pick alone, and a score on the item alone: the model, and the direction that
    information density compares with, stay those of the start. So candidates are scored once, what a pick brings is
    scored when it comes, and what the next picks may bring is asked for ahead without changing the outcome. Nothing is
    added to the `source`.
    """
    if count <= 0:
        return GrownBatch(items=[], preview_seconds=0.0)
    first = scorer.pick(source, count=count, barred=source.candidates.slots_of(barred), cancelled=cancelled)
    with ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="preview") as threads:
        growing = _Growing(source, scorer, preview, threads, known=set(barred), cancelled=cancelled)
        growing.waiting = [(item.rank, item) for item in first]
        heapq.heapify(growing.waiting)
        picks: list[ScoredItem] = []
        seconds = 0.0
        while growing.waiting and len(picks) < count:
            growing.ask_ahead(count - len(picks) - 1)
            item = heapq.heappop(growing.waiting)[1]
            picks.append(item)
            if len(picks) < count:
                started = clock()
                update = growing.answer(item.id)
                seconds += clock() - started
                growing.take_in(update)
    return GrownBatch(items=sorted(picks, key=lambda item: item.rank), preview_seconds=seconds)


@dataclass(slots=True)
class _Growing:
    """What can be picked next. `known` are items that are not to come in, or came in."""

    source: CandidateSource
    scorer: Scorer
    preview: Preview
    threads: ThreadPoolExecutor
    known: set[ItemId] = field(kw_only=True)
    cancelled: CancelCheck = field(kw_only=True)
    waiting: list[_Entry] = field(default_factory=list)
    asked: dict[ItemId, Future[CandidateUpdate]] = field(default_factory=dict)

    def ask_ahead(self, wanted: int) -> None:
        """Ask what the best would bring, unless that is under way, and with it what the next best would.

        Parameters
        ----------
        wanted
            Picks to come whose neighbours can still be picked.
        """
        if self.cancelled():
            raise Cancelled("the caller left while candidates were picked")
        if self.waiting[0][1].id in self.asked:
            return
        ahead = max(1, _ASKED_AT_ONCE - len(self.asked))
        few = [heapq.heappop(self.waiting) for _ in range(min(wanted, ahead, len(self.waiting)))]
        for entry in few:
            heapq.heappush(self.waiting, entry)
            item_id = entry[1].id
            if item_id not in self.asked:
                self.asked[item_id] = self.threads.submit(copy_context().run, self.preview, item_id)

    def answer(self, item_id: ItemId) -> CandidateUpdate | None:
        """Wait for what an item brings; None if the pool has lost it."""
        try:
            return self.asked.pop(item_id).result()
        except NotFound:
            return None

    def take_in(self, update: CandidateUpdate | None) -> None:
        """Let what is new in `update` be picked."""
        if update is None or not len(update.added):
            return
        brought = Candidates(with_texts=self.source.candidates.with_texts)
        brought.apply(update)
        new = self._new(update.added.ids)
        self.known.update(new)
        few = replace(self.source, candidates=brought, mirror=self.source.mirror.unused())
        for item in self.scorer.rate(few, brought.slots_of(new), cancelled=self.cancelled):
            heapq.heappush(self.waiting, (item.rank, item))

    def _new(self, ids: Sequence[ItemId]) -> list[ItemId]:
        # The index server leaves candidates out; its candidate pool may have moved on since ours was read.
        return [i for i in ids if i not in self.known and not len(self.source.candidates.slots_of([i]))]
