"""Client of the index server."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sealpool.batches import cut, from_batch, join, to_batch
from sealpool.client.connection import Connection
from sealpool.client.options import ClientOptions
from sealpool.client.resuming import Told
from sealpool.errors import InternalError
from sealpool.matrix import from_matrix, to_matrix
from sealpool.types import ItemId, Items, Vectors
from sealpool.v1 import common_pb2, index_pb2, index_pb2_grpc

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbors:
    """Nearest items of some queries, query after query, nearest first.

    `counts` (q,) int64 says how many of `ids` and `scores` (float32) belong to each query. `vectors` (n, d) are
    parallel to `ids`, None where not asked for.
    """

    counts: NDArray[np.int64]
    ids: list[ItemId]
    scores: NDArray[np.float32]
    pool_version: int
    vectors: Vectors | None

    def of(self, query: int) -> list[tuple[ItemId, float]]:
        """Return the neighbours of one query with their scores."""
        start = int(self.counts[:query].sum())
        stop = start + int(self.counts[query])
        return list(zip(self.ids[start:stop], self.scores[start:stop].tolist(), strict=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateUpdate:
    """What changed in a candidate pool between `base_version` and `info.version`.

    With base_version 0, `added` is the whole candidate pool, and what the caller held is void. `pool_direction` (d,)
    float32 is the mean unit vector of the pool's items that the campaign has not labelled.
    """

    added: Items
    removed: list[ItemId]
    info: common_pb2.CandidatePoolInfo
    base_version: int
    pool_size: int
    pool_direction: NDArray[np.float32]
    search_seconds: float
    pool_version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredItems:
    """The best items by a linear model, best first: `ids` and their `scores` (n,) float32, out of `scored` items."""

    ids: list[ItemId]
    scores: NDArray[np.float32]
    scored: int
    pool_version: int
    candidate_version: int
    score_seconds: float


class IndexClient(Connection):
    """Pools, neighbours and candidate pools, over gRPC."""

    def __init__(self, target: str = "127.0.0.1:7301", *, options: ClientOptions | None = None) -> None:
        super().__init__(target, options=options)
        self._stub = index_pb2_grpc.IndexServiceStub(self._channel)

    def create_pool(self, spec: index_pb2.PoolSpec) -> index_pb2.Pool:
        """Make an empty pool. Raises AlreadyExists if the name is taken."""
        request = index_pb2.CreatePoolRequest(spec=spec)
        return self.call(lambda s: self._stub.CreatePool(request, timeout=s), idempotent=False).pool

    def get_pool(self, name: str) -> index_pb2.Pool:
        """Return one pool."""
        request = index_pb2.GetPoolRequest(name=name)
        return self.call(lambda s: self._stub.GetPool(request, timeout=s)).pool

    def list_pools(self) -> list[index_pb2.Pool]:
        """Return all pools, by name."""
        request = index_pb2.ListPoolsRequest()
        return list(self.call(lambda s: self._stub.ListPools(request, timeout=s)).pools)

    def delete_pool(self, name: str) -> index_pb2.DeletePoolResponse:
        """Delete a pool with everything in it."""
        request = index_pb2.DeletePoolRequest(name=name)
        return self.call(lambda s: self._stub.DeletePool(request, timeout=s), idempotent=False, long=True)

    def upsert(self, pool: str, items: Items | Callable[[], Iterable[Items]]) -> index_pb2.UpsertResponse:
        """Add or replace items, all of them or none.

        Parameters
        ----------
        items
            The items, or, for more than memory should hold, a function that yields them in pieces; it is called again
            where the upload is tried again.
        """

        def requests() -> Iterator[index_pb2.UpsertRequest]:
            pieces = [items] if isinstance(items, Items) else items()
            yield index_pb2.UpsertRequest(pool=pool)
            for piece in pieces:
                for chunk in cut(piece, chunk_bytes=self.options.chunk_bytes):
                    yield index_pb2.UpsertRequest(items=to_batch(chunk))
            yield index_pb2.UpsertRequest(last=True)

        return self.call(lambda s: self._stub.Upsert(requests(), timeout=s), long=True)

    def delete_items(self, pool: str, ids: Sequence[str], *, purge: bool = False) -> index_pb2.DeleteItemsResponse:
        """Delete items; ids that the pool does not have are counted as missing.

        With `purge`, return once nothing of deleted items is left in the pool's files.
        """
        total = index_pb2.DeleteItemsResponse()
        requests = [index_pb2.DeleteItemsRequest(pool=pool, ids=some) for some in self._chunks(ids)]
        if purge:  # by itself: where it has to be asked again, what was deleted is counted nevertheless
            requests.append(index_pb2.DeleteItemsRequest(pool=pool, purge=True))
        for request in requests:
            answer = self.call(_bind(self._stub.DeleteItems, request), long=True)
            total.pool_version = answer.pool_version
            total.deleted += answer.deleted
            total.missing += answer.missing
        return total

    def get_items(
        self,
        pool: str,
        ids: Sequence[str],
        *,
        vectors: bool = True,
        payloads: bool = False,
        allow_missing: bool = False,
    ) -> Items:
        """Return items in the order of `ids`. Unknown ids raise NotFound, or are left out with `allow_missing`."""
        parts: list[Items] = []
        for some in self._chunks(ids):
            request = index_pb2.GetItemsRequest(
                pool=pool, ids=some, include_vectors=vectors, include_payloads=payloads, allow_missing=allow_missing
            )
            answers = self.call(_collect(self._stub.GetItems, request), long=True)
            parts.extend(from_batch(answer.items) for answer in answers)
        return join(parts, vectors=vectors, payloads=payloads)

    def scan_items(self, pool: str, *, vectors: bool = True, payloads: bool = False) -> Iterator[Items]:
        """Yield all items as they are at one version, in chunks, in the pool's own order.

        Where the index server restarts in the middle it goes on; Unavailable if the pool has changed meanwhile.
        """
        request = index_pb2.ScanItemsRequest(pool=pool, include_vectors=vectors, include_payloads=payloads)
        told: Told[common_pb2.ItemBatch] = Told()

        def begin(seconds: float) -> Iterator[tuple[int, object, common_pb2.ItemBatch]]:
            answers = self._stub.ScanItems(request, timeout=seconds)
            return told.beyond((len(a.items.ids), (a.pool_version, a.items), a.items) for a in answers)

        for rows, known_by, batch in self.resumed(begin):
            told.add(rows, known_by)
            yield from_batch(batch)

    def sample_items(
        self, pool: str, count: int, *, seed: int, campaign: str = "", exclude: Sequence[str] = ()
    ) -> list[ItemId]:
        """Draw up to `count` items that are no candidates of `campaign`, not labelled in it, and not in `exclude`."""
        request = index_pb2.SampleItemsRequest(pool=pool, campaign=campaign, count=count, seed=seed, exclude=exclude)
        answer = self.call(lambda s: self._stub.SampleItems(request, timeout=s))
        return [ItemId(item_id) for item_id in answer.ids]

    def search(
        self,
        pool: str,
        *,
        k: int,
        vectors: Vectors | None = None,
        ids: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        include_vectors: bool = False,
    ) -> Neighbors:
        """Return the k nearest items of each query: rows of `vectors`, or items of the pool by their ids."""
        request = index_pb2.SearchRequest(
            pool=pool,
            k=k,
            ids=ids,
            exclude=exclude,
            vectors=None if vectors is None else to_matrix(vectors),
            include_vectors=include_vectors,
        )
        answer = self.call(lambda s: self._stub.Search(request, timeout=s))
        return Neighbors(
            counts=np.asarray(answer.counts, np.int64),
            ids=[ItemId(item_id) for item_id in answer.ids],
            scores=from_matrix(answer.scores, field="scores").ravel(),
            pool_version=answer.pool_version,
            vectors=from_matrix(answer.vectors) if include_vectors else None,
        )

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
    ) -> CandidateUpdate:
        """Tell what was newly labelled and get what that changed, in one call; as a `preview`, what it would change.

        `expand_from_ids` None means all of `labelled_ids`. `classes` are the indices of each labelled item's classes,
        parallel to `labelled_ids`, or empty; anchoral needs them. Lists over the server's max_ids are the caller's to
        divide.
        """
        request = index_pb2.ExpandCandidatesRequest(
            pool=pool,
            campaign=campaign,
            policy=policy,
            labelled_ids=labelled_ids,
            expand_from_ids=labelled_ids if expand_from_ids is None else expand_from_ids,
            held_version=held_version,
            include_vectors=vectors,
            include_payloads=payloads,
            label_counts=[len(of_item) for of_item in classes],
            labels=[label for of_item in classes for label in of_item],
            preview=preview,
        )
        answers = self.call(_collect(self._stub.ExpandCandidates, request), long=True)
        if not answers or not answers[-1].HasField("summary"):
            raise InternalError("the answer to ExpandCandidates ends without a summary")
        summary = answers[-1].summary
        added = [from_batch(answer.added) for answer in answers if answer.HasField("added")]
        direction = from_matrix(summary.pool_direction, field="pool_direction").ravel()
        return CandidateUpdate(
            added=join(added, vectors=vectors, payloads=payloads, dimension=len(direction)),
            removed=[ItemId(item_id) for answer in answers for item_id in answer.removed.ids],
            info=summary.info,
            base_version=summary.base_version,
            pool_size=summary.pool_size,
            pool_direction=direction,
            search_seconds=summary.search_seconds,
            pool_version=answers[-1].pool_version,
        )

    def list_candidates(
        self, pool: str, campaign: str, *, vectors: bool = False, payloads: bool = False
    ) -> Iterator[Items]:
        """Yield all candidates of a campaign, in chunks. Unavailable where the index server restarts in the middle."""
        request = index_pb2.ListCandidatesRequest(
            pool=pool, campaign=campaign, include_vectors=vectors, include_payloads=payloads
        )
        for answer in self.stream(lambda s: self._stub.ListCandidates(request, timeout=s)):
            if answer.HasField("items"):
                yield from_batch(answer.items)

    def explain_candidates(self, pool: str, campaign: str, ids: Sequence[str]) -> list[index_pb2.CandidateReason]:
        """Return why each of `ids` is, or is not, a candidate of a campaign."""
        request = index_pb2.ExplainCandidatesRequest(pool=pool, campaign=campaign, ids=ids)
        return list(self.call(_bind(self._stub.ExplainCandidates, request)).reasons)

    def score_candidates(
        self,
        pool: str,
        campaign: str,
        weights: Vectors,
        biases: NDArray[np.floating] | None = None,
        *,
        count: int,
        strategy: str = "entropy",
        positive_class: int = 0,
        multilabel: bool = False,
        whole_pool: bool = False,
    ) -> ScoredItems:
        """Return the `count` best of a campaign's candidates, or of its whole unlabelled pool, by a linear model.

        Parameters
        ----------
        weights, biases
            (c, d) and (c,): the logits of x are w·x + b. One row is the logit of the second of two classes.
        """
        request = index_pb2.ScoreCandidatesRequest(
            pool=pool,
            campaign=campaign,
            scope=index_pb2.SCORE_SCOPE_POOL if whole_pool else index_pb2.SCORE_SCOPE_CANDIDATES,
            weights=to_matrix(weights),
            biases=None if biases is None else to_matrix(np.atleast_2d(biases)),
            strategy=strategy,
            positive_class=positive_class,
            count=count,
            multilabel=multilabel,
        )
        answer = self.call(_bind(self._stub.ScoreCandidates, request), long=True)
        return ScoredItems(
            ids=[ItemId(item_id) for item_id in answer.ids],
            scores=from_matrix(answer.scores, field="scores").ravel(),
            scored=answer.scored,
            pool_version=answer.pool_version,
            candidate_version=answer.candidate_version,
            score_seconds=answer.score_seconds,
        )

    def get_reachability(
        self, pool: str, campaign: str, *, k: int = 0, seed: int = 0
    ) -> index_pb2.GetReachabilityResponse:
        """Return what share of the pool any number of rounds could reach."""
        request = index_pb2.GetReachabilityRequest(pool=pool, campaign=campaign, k=k, seed=seed)
        return self.call(_bind(self._stub.GetReachability, request), long=True)

    def create_snapshot(self, pool: str, uri: str) -> index_pb2.CreateSnapshotResponse:
        """Write a pool as it is now to a directory of the server, or to an object store."""
        request = index_pb2.CreateSnapshotRequest(pool=pool, uri=uri)
        return self.call(_bind(self._stub.CreateSnapshot, request), idempotent=False, long=True)

    def restore_snapshot(self, uri: str, *, name: str = "") -> index_pb2.Pool:
        """Make a pool from a snapshot, under its old name or another."""
        request = index_pb2.RestoreSnapshotRequest(uri=uri, name=name)
        return self.call(_bind(self._stub.RestoreSnapshot, request), idempotent=False, long=True).pool

    def set_alias(self, alias: str, pool: str) -> str:
        """Let `alias` stand for `pool`; return the pool that it stood for, "" for none."""
        request = index_pb2.SetAliasRequest(alias=alias, pool=pool)
        return self.call(_bind(self._stub.SetAlias, request)).previous_pool

    def delete_alias(self, alias: str) -> None:
        """Forget an alias."""
        request = index_pb2.DeleteAliasRequest(alias=alias)
        self.call(_bind(self._stub.DeleteAlias, request), idempotent=False)

    def drop_candidates(self, pool: str, campaign: str) -> int:
        """Forget a campaign's candidate pool; return how many candidates it had."""
        request = index_pb2.DropCandidatesRequest(pool=pool, campaign=campaign)
        return self.call(lambda s: self._stub.DropCandidates(request, timeout=s)).dropped

    def _chunks(self, ids: Sequence[str]) -> Iterator[Sequence[str]]:
        # At least one, so that an unknown pool is an error also where no id was given.
        for start in range(0, max(len(ids), 1), self.options.chunk_ids):
            yield ids[start : start + self.options.chunk_ids]


def _bind(method: Callable[..., T], request: object) -> Callable[[float], T]:
    return lambda seconds: method(request, timeout=seconds)


def _collect(method: Callable[..., Iterable[T]], request: object) -> Callable[[float], list[T]]:
    return lambda seconds: list(method(request, timeout=seconds))
