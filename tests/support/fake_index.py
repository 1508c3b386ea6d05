"""An index server in memory, behind the learner's port: exact, small, and counting what it is asked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from learner.draws import draws_of, keys_of
from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound
from sealpool.types import ItemId, Items, Payload
from sealpool.v1 import common_pb2, index_pb2


@dataclass(frozen=True, kw_only=True)
class FakeUpdate:
    added: Items
    removed: list[ItemId]
    info: common_pb2.CandidatePoolInfo
    base_version: int
    pool_direction: NDArray[np.float32]
    pool_version: int


@dataclass(frozen=True, kw_only=True)
class FakeNeighbours:
    counts: NDArray[np.int64]
    ids: list[ItemId]
    scores: NDArray[np.float32]


@dataclass
class _Campaign:
    policy: str
    versions: list[dict[ItemId, int]] = field(default_factory=lambda: [{}])  # members, with the version of their item
    labelled: set[ItemId] = field(default_factory=set)
    expanded: set[ItemId] = field(default_factory=set)
    classes: dict[ItemId, tuple[int, ...]] = field(default_factory=dict)


class FakeIndex:
    """One pool, and names that stand for it. Candidates are sent by id, or `backwards`.

    `subset` takes the place of anchoral: of the unlabelled items the `subpool_size` first by a draw of the version.
    An item that is not among `texts` has none.
    """

    def __init__(
        self,
        vectors: dict[str, list[float]],
        *,
        pool: str = "pool",
        backwards: bool = False,
        texts: Mapping[str, str] | None = None,
    ) -> None:
        self.pool = pool
        self.texts = dict(texts or {})
        self.vectors = {ItemId(i): np.array(v, np.float32) for i, v in vectors.items()}
        self.item_versions = dict.fromkeys(self.vectors, 1)
        self.dimension = len(next(iter(vectors.values()))) if vectors else 2
        self.version = 1
        self.created_s = 1_000
        self.state = index_pb2.POOL_STATE_READY
        self.backwards = backwards
        self.campaigns: dict[str, _Campaign] = {}
        self.aliases: set[str] = set()
        self.names_used: set[str] = set()
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self.told_classes: list[dict[str, tuple[int, ...]]] = []

    def put(self, item_id: str, vector: Sequence[float]) -> None:
        self.version += 1
        self.vectors[ItemId(item_id)] = np.array(vector, np.float32)
        self.item_versions[ItemId(item_id)] = self.version
        for campaign in self.campaigns.values():
            if item_id in campaign.versions[-1]:
                campaign.versions.append(campaign.versions[-1] | {ItemId(item_id): self.version})

    def delete(self, item_id: str) -> None:
        self.version += 1
        del self.vectors[ItemId(item_id)]
        for campaign in self.campaigns.values():
            if item_id in campaign.versions[-1]:
                campaign.versions.append({i: v for i, v in campaign.versions[-1].items() if i != item_id})

    def get_pool(self, name: str) -> index_pb2.Pool:
        if name in self.aliases:
            name = self.pool
        self._check_name(name)
        ready = self.state == index_pb2.POOL_STATE_READY
        pool = index_pb2.Pool(
            spec=index_pb2.PoolSpec(name=self.pool, dimension=self.dimension),
            version=self.version if ready else 0,
            size=len(self.vectors) if ready else 0,
            state=self.state,
        )
        pool.created_at.FromSeconds(self.created_s)
        return pool

    def get_items(
        self,
        pool: str,
        ids: Sequence[str],
        *,
        vectors: bool = True,
        payloads: bool = False,
        allow_missing: bool = False,
    ) -> Items:
        self._check_name(pool)
        self.calls.append(("get_items", tuple(ids)))
        missing = [i for i in ids if i not in self.vectors]
        if missing and not allow_missing:
            raise NotFound("item", *missing, field="ids")
        return self._items([ItemId(i) for i in ids if i in self.vectors], vectors=vectors, payloads=payloads)

    def scan_items(self, pool: str, *, vectors: bool = True, payloads: bool = False) -> Iterator[Items]:
        self._check_name(pool)
        ids = list(self.vectors)
        for start in range(0, len(ids), 7):
            yield self._items(ids[start : start + 7], vectors=vectors, payloads=payloads)

    def search(self, pool: str, *, k: int, ids: Sequence[str] | None = None) -> FakeNeighbours:
        """Search by cosine similarity."""
        self._check_name(pool)
        self.calls.append(("search", tuple(ids or ())))
        missing = [i for i in ids or () if i not in self.vectors]
        if missing:
            raise NotFound("item", *missing, field="ids")
        everything = list(self.vectors)
        matrix = np.stack(list(self.vectors.values()))
        units = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-30)
        found: list[ItemId] = []
        scores: list[float] = []
        for item_id in ids or ():
            own = everything.index(ItemId(item_id))
            similar = units @ units[own]
            order = [row for row in np.argsort(-similar, kind="stable").tolist() if row != own][:k]
            found += [everything[row] for row in order]
            scores += similar[order].tolist()
        counts = np.full(len(ids or ()), min(k, len(everything) - 1), np.int64)
        return FakeNeighbours(counts=counts, ids=found, scores=np.array(scores, np.float32))

    def sample_items(
        self, pool: str, count: int, *, seed: int, campaign: str = "", exclude: Sequence[str] = ()
    ) -> list[ItemId]:
        self._check_name(pool)
        held = self.campaigns.get(campaign)
        taken = {*exclude} | ({*held.versions[-1], *held.labelled} if held else set())
        ids = sorted(i for i in self.vectors if i not in taken)
        order = np.argsort(draws_of(keys_of(ids), seed)) if ids else []
        return [ids[place] for place in order[:count]]

    def expand_candidates(
        self,
        pool: str,
        campaign: str,
        labelled_ids: Sequence[str],
        *,
        policy: common_pb2.PolicySpec,
        expand_from_ids: Sequence[str] | None = None,
        classes: Sequence[Sequence[int]] = (),
        held_version: int = 0,
        vectors: bool = True,
        payloads: bool = False,
        preview: bool = False,
    ) -> FakeUpdate:
        self._check_name(pool)
        self.calls.append(("preview" if preview else "expand", tuple(labelled_ids)))
        name = policy.name or "seals"
        if name not in ("seals", "full", "subset"):
            raise InvalidArgument("policy.name", f"{name!r} is unknown")
        if not self.vectors:
            raise FailedPrecondition("the pool is empty")
        if preview:
            return self._preview(self.campaigns[campaign], labelled_ids, policy.k or 100, payloads=payloads)
        held = self.campaigns.setdefault(campaign, _Campaign(name))
        new = [ItemId(i) for i in labelled_ids if i not in held.labelled]
        asked = labelled_ids if expand_from_ids is None else expand_from_ids
        sources = [ItemId(i) for i in asked if i not in held.expanded]
        missing = [i for i in sources if i not in self.vectors]
        if missing:
            raise NotFound("item", *missing, field="expand_from_ids")
        told = {ItemId(i): tuple(c) for i, c in zip(labelled_ids, classes, strict=bool(classes))}
        self.told_classes.append(dict(told))
        corrected = {i: c for i, c in told.items() if held.classes.get(i) != c}
        held.classes.update(corrected)
        held.labelled.update(new)
        held.expanded.update(sources)
        grown = {*held.versions[-1], *self._proposed(name, sources, policy.k or 100)} - held.labelled
        if name == "subset" and (new or corrected):
            left = sorted(self.vectors.keys() - held.labelled)
            order = np.argsort(draws_of(keys_of(left), len(held.versions)))
            grown = {left[place] for place in order[: policy.subpool_size]}
        members = {i: self.item_versions[i] for i in grown}
        if members != held.versions[-1] or new:
            held.versions.append(members)
        return self._difference(held, held_version, payloads=payloads)

    def _preview(self, held: _Campaign, picked: Sequence[str], k: int, *, payloads: bool) -> FakeUpdate:
        known = {*held.versions[-1], *held.labelled, *picked}
        missing = [i for i in picked if i not in self.vectors]
        if missing:
            raise NotFound("item", *missing, field="expand_from_ids")
        brought = sorted(self._proposed("seals", [ItemId(i) for i in picked], k) - known, reverse=self.backwards)
        version = len(held.versions) - 1
        return FakeUpdate(
            added=self._items(brought, vectors=True, payloads=payloads),
            removed=[],
            info=common_pb2.CandidatePoolInfo(version=version, size=len(held.versions[-1]), added=len(brought)),
            base_version=version,
            pool_direction=np.zeros(self.dimension, np.float32),
            pool_version=self.version,
        )

    def _check_name(self, pool: str) -> None:
        if pool not in self.aliases | {self.pool}:
            raise NotFound("pool", pool)
        self.names_used.add(pool)

    def _proposed(self, policy: str, sources: Sequence[ItemId], k: int) -> set[ItemId]:
        ids = list(self.vectors)
        if policy == "full":
            return set(ids)
        if policy == "subset":
            return set()
        matrix = np.stack(list(self.vectors.values()))
        found: set[ItemId] = set()
        for source in sources:
            nearest = np.argsort(((matrix - self.vectors[source]) ** 2).sum(axis=1), kind="stable")
            found.update([ids[place] for place in nearest if ids[place] != source][:k])
        return found

    def _difference(self, held: _Campaign, held_version: int, *, payloads: bool) -> FakeUpdate:
        base = held_version if held_version < len(held.versions) else 0
        before, now = held.versions[base], held.versions[-1]
        added = sorted((i for i, v in now.items() if before.get(i) != v), reverse=self.backwards)
        removed = sorted(i for i in before if i not in now)
        units = np.array(
            [v / (np.linalg.norm(v.astype(np.float64)) or 1) for i, v in self.vectors.items() if i not in held.labelled]
        )
        return FakeUpdate(
            added=self._items(added, vectors=True, payloads=payloads),
            removed=removed,
            info=common_pb2.CandidatePoolInfo(
                version=len(held.versions) - 1,
                size=len(now),
                pool_share=len(now) / len(self.vectors),
                added=len(added),
                removed=len(removed),
                labelled=len(held.labelled),
            ),
            base_version=base,
            pool_direction=units.mean(axis=0).astype(np.float32)
            if len(units)
            else np.zeros(self.dimension, np.float32),
            pool_version=self.version,
        )

    def _items(self, ids: Sequence[ItemId], *, vectors: bool, payloads: bool) -> Items:
        rows = np.array([self.vectors[i] for i in ids], np.float32).reshape(len(ids), self.dimension)
        texts = [Payload(text=self.texts.get(i, "")) for i in ids]
        return Items(ids=list(ids), vectors=rows if vectors else None, payloads=texts if payloads else None)
