"""The candidates that the learner holds of each campaign, and how they are brought up to date."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from learner.candidates import Candidates
from learner.device import Mirror
from learner.index_port import CandidateUpdate, Index
from sealpool.errors import NotFound
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, index_pb2


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledSet:
    """The labelled set of a round.

    Parameters
    ----------
    expands
        Each labelled id, and whether it brings its neighbours in.
    excluded
        Never picked.
    classes
        The indices of each labelled item's classes; of all of them, or of none where the caller did not tell them.
    """

    expands: Mapping[ItemId, bool]
    excluded: Sequence[ItemId]
    classes: Mapping[ItemId, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What the index server was told of a labelled item: whether to expand from it, and its classes (None: not)."""

    expands: bool
    classes: tuple[int, ...] | None


class HeldCampaign:
    """What the learner holds of one campaign in one pool. One thread at a time.

    `told` are the labelled ids that the index server knows, with what it was told of them; it passes over what it was
    told before. `added` and `removed` count what changed in `round`.
    """

    def __init__(self, created_ns: int, mirror: Mirror, candidates: Candidates) -> None:
        self.created_ns = created_ns
        self.mirror = mirror
        self.candidates = candidates
        self.used_at = 0.0
        self.told: dict[ItemId, Told] = {}
        self.round = -1
        self.added = 0
        self.removed = 0


class HeldCampaigns:
    """All campaigns held, within a limit of memory. Safe to share between threads.

    Parameters
    ----------
    limit_bytes
        Candidates of all campaigns together. The campaign in use stays; the others go, the least recently used first,
        and are read from the index server again when they are needed. Where one campaign's vectors alone pass the
        limit, they are not kept, and read each time that they are scored.
    device_limit_bytes
        Candidates of one campaign on a GPU.
    idle_s
        Seconds after which a campaign that is not used is let go.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        limit_bytes: int,
        device_limit_bytes: int,
        idle_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._device = device
        self._limit = limit_bytes
        self._device_limit = device_limit_bytes
        self._idle_s = idle_s
        self._clock = clock
        self._guard = threading.Lock()
        self._held: OrderedDict[tuple[str, str], HeldCampaign] = OrderedDict()

    def sizes(self) -> Mapping[str, int]:
        """Return how many candidates of each campaign are held."""
        with self._guard:
            return {name: len(held.candidates) for (_, name), held in self._held.items()}

    def nbytes(self) -> int:
        """Return the memory of all candidates."""
        with self._guard:
            return sum(held.candidates.nbytes for held in self._held.values())

    def get(self, pool: index_pb2.Pool, campaign: str, *, texts: bool = False) -> HeldCampaign:
        """Return what is held of a campaign in a pool, which is named as it is, not by an alias.

        It is nothing if the pool was made anew since, if the campaign was in another one meanwhile, or if it was held
        without the texts that are now asked for.
        """
        key, created_ns = (pool.spec.name, campaign), pool.created_at.ToNanoseconds()
        with self._guard:
            for other in [other for other in self._held if other[1] == campaign and other != key]:
                del self._held[other]
            held = self._held.get(key)
            if held is None or held.created_ns != created_ns or held.candidates.with_texts < texts:
                mirror = Mirror(self._device, limit_bytes=self._device_limit)
                candidates = Candidates(with_texts=texts, limit_bytes=self._limit)
                held = self._held[key] = HeldCampaign(created_ns, mirror, candidates)
            held.used_at = self._clock()
            self._held.move_to_end(key)
            return held

    def apart(self, pool: index_pb2.Pool) -> HeldCampaign:
        """Return room for the candidates of one Select that no later one will want: none of the above holds it."""
        mirror = Mirror(self._device, limit_bytes=self._device_limit)
        return HeldCampaign(pool.created_at.ToNanoseconds(), mirror, Candidates(limit_bytes=self._limit))

    def shrink(self) -> None:
        """Go back under the limit, keeping the campaign used last."""
        with self._guard:
            total = sum(held.candidates.nbytes for held in self._held.values())
            while total > self._limit and len(self._held) > 1:
                _, held = self._held.popitem(last=False)
                total -= held.candidates.nbytes

    def release_idle(self) -> None:
        """Let go of campaigns that have not been used for `idle_s`. One in use just now keeps its own till it ends."""
        oldest = self._clock() - self._idle_s
        with self._guard:
            for key in [key for key, held in self._held.items() if held.used_at < oldest]:
                del self._held[key]


class Expander:
    """Tells the index server what was labelled, and applies what it answers.

    Parameters
    ----------
    told_per_call
        Labelled ids in one call to the index server, at most.
    """

    def __init__(self, index: Index, *, told_per_call: int) -> None:
        self._index = index
        self._told_per_call = told_per_call

    def expand(
        self,
        held: HeldCampaign,
        labelled: LabelledSet,
        *,
        pool: str,
        campaign: str,
        round_number: int,
        policy: common_pb2.PolicySpec,
    ) -> CandidateUpdate:
        """Bring `held` to the index server's present version, and return its last answer.

        Only what it was not told is sent; after rounds that this learner did not see, everything. Where it begins the
        candidate pool anew (it answers from version 0 though we held a later one) it has forgotten what it was told,
        and is told everything.
        """
        if held.round not in (round_number, round_number - 1):
            # Another learner may have told of the rounds between, and of labels that were corrected and back since.
            held.told.clear()
        if held.round != round_number:
            held.round, held.added, held.removed = round_number, 0, 0
        known = {
            item_id: Told(expands=expands, classes=labelled.classes.get(item_id))
            for item_id, expands in labelled.expands.items()
        }

        def ask(ids: Sequence[ItemId], sources: Sequence[ItemId]) -> CandidateUpdate:
            return self._index.expand_candidates(
                pool,
                campaign,
                ids,
                policy=policy,
                expand_from_ids=sources,
                classes=[labelled.classes[item_id] for item_id in ids] if labelled.classes else (),
                held_version=held.candidates.version,
                payloads=held.candidates.with_texts,
            )

        def tell_some(ids: Sequence[ItemId]) -> CandidateUpdate:
            sources = [item_id for item_id in ids if known[item_id].expands]
            try:
                return ask(ids, sources)
            except NotFound:
                # An item that was deleted after it was labelled has no neighbours to bring; the others have.
                return ask(ids, self._index.get_items(pool, sources, vectors=False, allow_missing=True).ids)

        def tell(ids: Sequence[ItemId]) -> tuple[CandidateUpdate, bool]:
            anew = False
            for start in range(0, max(len(ids), 1), self._told_per_call):
                some = ids[start : start + self._told_per_call]
                held_version = held.candidates.version
                update = tell_some(some)
                anew |= held_version > 0 and update.base_version == 0
                held.candidates.apply(update)
                held.told.update((item_id, known[item_id]) for item_id in some)
                held.added += update.info.added
                held.removed += update.info.removed
            return update, anew

        ids = sorted(known)
        update, anew = tell([item_id for item_id in ids if _is_news(known[item_id], held.told.get(item_id))])
        if anew:
            held.told.clear()
            update, _ = tell(ids)
        return update


def _is_news(now: Told, told: Told | None) -> bool:
    """Whether a label must be told (again).

    One that was corrected to a class of interest makes a source of an item that was only taken out. Classes that were
    corrected, or told for the first time, are told too.
    """
    return told is None or (now.expands and not told.expands) or (now.classes != told.classes)
