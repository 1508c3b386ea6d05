"""IndexService over the pools: messages in, plain Python, messages out."""

# ruff: noqa: N802, ARG002 - names and signatures are gRPC's; index.proto says what each call does.

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

import grpc

from index_server.candidates.policies import DEFAULT_POLICY, POLICIES
from index_server.catalog import PoolCatalog
from index_server.limits import Limits
from index_server.messages import from_items, from_spec, to_info, to_items, to_pool
from index_server.records import Records, cut
from sealpool.errors import InvalidArgument, ResourceExhausted
from sealpool.matrix import from_matrix, to_matrix
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, index_pb2, index_pb2_grpc
from sealpool.validation import check_ids, check_name

_CHUNK_BYTES: Final = 2 << 20
_DEFAULT_K: Final = 100


class IndexServicer(index_pb2_grpc.IndexServiceServicer):
    """IndexService. Errors of sealpool.errors pass through: the runtime maps them."""

    def __init__(self, catalog: PoolCatalog, limits: Limits) -> None:
        self._catalog = catalog
        self._limits = limits

    def CreatePool(
        self, request: index_pb2.CreatePoolRequest, context: grpc.ServicerContext
    ) -> index_pb2.CreatePoolResponse:
        """Make an empty pool."""
        if not request.HasField("spec"):
            raise InvalidArgument("spec", "is missing")
        return index_pb2.CreatePoolResponse(pool=to_pool(self._catalog.create(from_spec(request.spec))))

    def GetPool(self, request: index_pb2.GetPoolRequest, context: grpc.ServicerContext) -> index_pb2.GetPoolResponse:
        """Show a pool."""
        return index_pb2.GetPoolResponse(pool=to_pool(self._catalog.status(request.name)))

    def ListPools(
        self, request: index_pb2.ListPoolsRequest, context: grpc.ServicerContext
    ) -> index_pb2.ListPoolsResponse:
        """Show all pools."""
        return index_pb2.ListPoolsResponse(pools=[to_pool(status) for status in self._catalog.statuses()])

    def DeletePool(
        self, request: index_pb2.DeletePoolRequest, context: grpc.ServicerContext
    ) -> index_pb2.DeletePoolResponse:
        """Delete a pool."""
        version, size = self._catalog.delete(request.name)
        return index_pb2.DeletePoolResponse(pool_version=version, size=size)

    def Upsert(
        self, request_iterator: Iterator[index_pb2.UpsertRequest], context: grpc.ServicerContext
    ) -> index_pb2.UpsertResponse:
        """Add or replace items."""
        first = next(request_iterator, None)
        if first is None or not first.pool:
            raise InvalidArgument("pool", "is missing in the first message")
        changed = self._catalog.get(first.pool).upsert(_batches(first, request_iterator))
        return index_pb2.UpsertResponse(
            pool_version=changed.version, inserted=changed.inserted, replaced=changed.replaced
        )

    def DeleteItems(
        self, request: index_pb2.DeleteItemsRequest, context: grpc.ServicerContext
    ) -> index_pb2.DeleteItemsResponse:
        """Delete items."""
        changed = self._catalog.get(request.pool).delete(self._ids("ids", request.ids))
        return index_pb2.DeleteItemsResponse(
            pool_version=changed.version, deleted=changed.deleted, missing=changed.missing
        )

    def GetItems(
        self, request: index_pb2.GetItemsRequest, context: grpc.ServicerContext
    ) -> Iterator[index_pb2.GetItemsResponse]:
        """Read items by id."""
        reading = self._catalog.get(request.pool).read(
            self._ids("ids", request.ids),
            vectors=request.include_vectors,
            payloads=request.include_payloads,
            allow_missing=request.allow_missing,
        )
        for chunk in _chunks(reading.parts):
            yield index_pb2.GetItemsResponse(pool_version=reading.version, items=to_items(chunk))

    def ScanItems(
        self, request: index_pb2.ScanItemsRequest, context: grpc.ServicerContext
    ) -> Iterator[index_pb2.ScanItemsResponse]:
        """Read all items."""
        reading = self._catalog.get(request.pool).scan(
            vectors=request.include_vectors, payloads=request.include_payloads
        )
        for chunk in _chunks(reading.parts):
            yield index_pb2.ScanItemsResponse(pool_version=reading.version, items=to_items(chunk))

    def SampleItems(
        self, request: index_pb2.SampleItemsRequest, context: grpc.ServicerContext
    ) -> index_pb2.SampleItemsResponse:
        """Draw items at random."""
        if request.count > self._limits.max_sample:
            raise InvalidArgument("count", f"{request.count:,} is over max_sample, {self._limits.max_sample:,}")
        campaign = check_name("campaign", request.campaign) if request.campaign else ""
        version, ids = self._catalog.get(request.pool).sample(
            request.count, seed=request.seed, campaign=campaign, exclude=self._ids("exclude", request.exclude)
        )
        return index_pb2.SampleItemsResponse(pool_version=version, ids=ids)

    def Search(self, request: index_pb2.SearchRequest, context: grpc.ServicerContext) -> index_pb2.SearchResponse:
        """Find the nearest items."""
        pool = self._catalog.get(request.pool)
        by_vector = request.HasField("vectors")
        if by_vector == bool(request.ids):
            raise InvalidArgument("vectors", "exactly one of vectors and ids must be given")
        self._check_search(request.vectors.rows if by_vector else len(request.ids), request.k)
        exclude = self._ids("exclude", request.exclude)
        if by_vector:
            found = pool.search(from_matrix(request.vectors), request.k, exclude=exclude)
        else:
            found = pool.search_ids(self._ids("ids", request.ids), request.k, exclude=exclude)
        return index_pb2.SearchResponse(
            pool_version=found.version, counts=found.counts, ids=found.ids, scores=to_matrix(found.scores[:, None])
        )

    def ExpandCandidates(
        self, request: index_pb2.ExpandCandidatesRequest, context: grpc.ServicerContext
    ) -> Iterator[index_pb2.ExpandCandidatesResponse]:
        """Tell labels and get what they changed."""
        policy, k = self._policy(request.policy)
        expansion = self._catalog.get(request.pool).expand(
            check_name("campaign", request.campaign),
            policy=policy,
            k=k,
            labelled=self._labels(request),
            expand_from=list(map(ItemId, request.expand_from_ids)),
            held_version=request.held_version,
            vectors=request.include_vectors,
            payloads=request.include_payloads,
        )
        version, view = expansion.version, expansion.campaign
        for chunk in _chunks(expansion.added):
            yield index_pb2.ExpandCandidatesResponse(pool_version=version, added=to_items(chunk))
        for removed in cut(Records(ids=view.difference.removed), _CHUNK_BYTES):
            part = index_pb2.RemovedItems(ids=removed.ids)
            yield index_pb2.ExpandCandidatesResponse(pool_version=version, removed=part)
        summary = index_pb2.ExpandSummary(
            info=to_info(view, pool_size=expansion.pool_size),
            base_version=view.difference.base_version,
            pool_size=expansion.pool_size,
            pool_direction=to_matrix(expansion.direction[None, :]),
            search_seconds=expansion.search_seconds,
        )
        yield index_pb2.ExpandCandidatesResponse(pool_version=version, summary=summary)

    def ListCandidates(
        self, request: index_pb2.ListCandidatesRequest, context: grpc.ServicerContext
    ) -> Iterator[index_pb2.ListCandidatesResponse]:
        """Read all candidates of a campaign."""
        found = self._catalog.get(request.pool).candidates(
            check_name("campaign", request.campaign),
            vectors=request.include_vectors,
            payloads=request.include_payloads,
        )
        for chunk in _chunks(found.added):
            yield index_pb2.ListCandidatesResponse(pool_version=found.version, items=to_items(chunk))
        info = to_info(found.campaign, pool_size=found.pool_size)
        yield index_pb2.ListCandidatesResponse(pool_version=found.version, info=info)

    def DropCandidates(
        self, request: index_pb2.DropCandidatesRequest, context: grpc.ServicerContext
    ) -> index_pb2.DropCandidatesResponse:
        """Forget a candidate pool."""
        campaign = check_name("campaign", request.campaign)
        version, dropped = self._catalog.get(request.pool).drop_candidates(campaign)
        return index_pb2.DropCandidatesResponse(pool_version=version, dropped=dropped)

    def _ids(self, field: str, ids: Sequence[str]) -> list[ItemId]:
        return check_ids(field, ids, limit=self._limits.max_ids, setting="max_ids")

    def _check_search(self, queries: int, k: int) -> None:
        limits = self._limits
        if not queries:
            raise InvalidArgument("vectors", "holds no query")
        if queries > limits.max_queries:
            raise InvalidArgument("vectors", f"{queries:,} queries are over max_queries, {limits.max_queries:,}")
        self._check_k("k", k)
        if queries * k > limits.max_neighbors:
            raise ResourceExhausted(
                f"{queries:,} queries × k = {k:,}", limit=limits.max_neighbors, setting="max_neighbors"
            )

    def _check_k(self, field: str, k: int) -> None:
        if not 1 <= k <= self._limits.max_k:
            raise InvalidArgument(field, f"{k:,} is not in 1 to max_k, {self._limits.max_k:,}")

    def _policy(self, policy: common_pb2.PolicySpec) -> tuple[str, int]:
        name = policy.name or DEFAULT_POLICY
        if name not in POLICIES:
            raise InvalidArgument("policy.name", f"{name!r} is not one of {', '.join(POLICIES)}")
        k = policy.k or min(_DEFAULT_K, self._limits.max_k)
        self._check_k("policy.k", k)
        return name, k

    def _labels(self, request: index_pb2.ExpandCandidatesRequest) -> list[ItemId]:
        labelled = self._ids("labelled_ids", request.labelled_ids)
        unknown = set(self._ids("expand_from_ids", request.expand_from_ids)).difference(labelled)
        if unknown:
            raise InvalidArgument("expand_from_ids", f"{min(unknown)!r} is not in labelled_ids")
        return labelled


def _batches(first: index_pb2.UpsertRequest, others: Iterator[index_pb2.UpsertRequest]) -> Iterator[Records]:
    ended = False
    for request in chain((first,), others):
        if ended:
            raise InvalidArgument("last", "another message follows the last one")
        if request.pool not in ("", first.pool):
            raise InvalidArgument("pool", f"{request.pool!r} after {first.pool!r}: a stream is for one pool")
        yield from_items(request.items)
        ended = request.last
    if not ended:  # what a caller who dies in the middle leaves looks to gRPC like a stream that ended
        raise InvalidArgument("last", "the stream ended without a last message; nothing of it was kept")


def _chunks(parts: Iterator[Records]) -> Iterator[Records]:
    for part in parts:
        yield from cut(part, _CHUNK_BYTES)
