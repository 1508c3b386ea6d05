"""Client of the index server."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sealpool.batches import cut, from_batch, join, to_batch
from sealpool.client.connection import Connection
from sealpool.client.options import ClientOptions
from sealpool.errors import InternalError
from sealpool.matrix import from_matrix, to_matrix
from sealpool.types import ItemId, Items, Vectors
from sealpool.v1 import common_pb2, index_pb2, index_pb2_grpc

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbors:
    """Nearest items of some queries, query after query, nearest first.

    `counts` (q,) int64 says how many of `ids` and `scores` (float32) belong to each query.
    """

    counts: NDArray[np.int64]
    ids: list[ItemId]
    scores: NDArray[np.float32]
    pool_version: int

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

    def delete_items(self, pool: str, ids: Sequence[str]) -> index_pb2.DeleteItemsResponse:
        """Delete items; ids that the pool does not have are counted as missing."""
        total = index_pb2.DeleteItemsResponse()
        for some in self._chunks(ids):
            request = index_pb2.DeleteItemsRequest(pool=pool, ids=some)
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
        """Yield all items as they are at one version, in chunks, in the pool's own order."""
        request = index_pb2.ScanItemsRequest(pool=pool, include_vectors=vectors, include_payloads=payloads)
        for answer in self.stream(lambda s: self._stub.ScanItems(request, timeout=s)):
            yield from_batch(answer.items)

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
    ) -> Neighbors:
        """Return the k nearest items of each query: rows of `vectors`, or items of the pool by their ids."""
        request = index_pb2.SearchRequest(
            pool=pool, k=k, ids=ids, exclude=exclude, vectors=None if vectors is None else to_matrix(vectors)
        )
        answer = self.call(lambda s: self._stub.Search(request, timeout=s))
        return Neighbors(
            counts=np.asarray(answer.counts, np.int64),
            ids=[ItemId(item_id) for item_id in answer.ids],
            scores=from_matrix(answer.scores, field="scores").ravel(),
            pool_version=answer.pool_version,
        )

    def expand_candidates(
        self,
        pool: str,
        campaign: str,
        labelled_ids: Sequence[str],
        *,
        policy: common_pb2.PolicySpec,
        expand_from_ids: Sequence[str] | None = None,
        held_version: int = 0,
        vectors: bool = True,
        payloads: bool = False,
    ) -> CandidateUpdate:
        """Tell what was newly labelled and get what that changed, in one call.

        `expand_from_ids` None means all of `labelled_ids`. Lists over the server's max_ids are the caller's to divide.
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
        """Yield all candidates of a campaign, in chunks."""
        request = index_pb2.ListCandidatesRequest(
            pool=pool, campaign=campaign, include_vectors=vectors, include_payloads=payloads
        )
        for answer in self.stream(lambda s: self._stub.ListCandidates(request, timeout=s)):
            if answer.HasField("items"):
                yield from_batch(answer.items)

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
