"""IndexService over the pools: messages in, plain Python, messages out."""

# ruff: noqa: N802, ARG002 - names and signatures are gRPC's; index.proto says what each call does.

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, chain
from typing import Final

import grpc

from index_server.candidates.book import Labels
from index_server.candidates.policies import resolve
from index_server.catalog import PoolCatalog
from index_server.limits import Limits
from index_server.messages import from_items, from_model, from_spec, to_info, to_items, to_pool, to_reason
from index_server.ports import CandidatePolicy, PolicyOptions
from index_server.records import Records, cut
from sealpool.errors import InvalidArgument, ResourceExhausted
from sealpool.matrix import from_matrix, to_matrix
from sealpool.runtime.callers import caller_of
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, index_pb2, index_pb2_grpc
from sealpool.validation import check_ids, check_name

_CHUNK_BYTES: Final = 2 << 20
_DEFAULT_REACH_K: Final = 100
_DEFAULT_STRATEGY: Final = "entropy"


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
        caller = caller_of(context)
        seen = [status for status in self._catalog.statuses() if caller.may_use(status.name)]
        return index_pb2.ListPoolsResponse(pools=list(map(to_pool, seen)))

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
        pool = self._catalog.get(request.pool)
        changed = pool.delete(self._ids("ids", request.ids))
        if request.purge:
            pool.purge()
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
            queries = from_matrix(request.vectors)
            found = pool.search(
                queries, request.k, exclude=exclude, vectors=request.include_vectors, caller=caller_of(context)
            )
        else:
            ids = self._ids("ids", request.ids)
            found = pool.search_ids(
                ids, request.k, exclude=exclude, vectors=request.include_vectors, caller=caller_of(context)
            )
        return index_pb2.SearchResponse(
            pool_version=found.version,
            counts=found.counts,
            ids=found.ids,
            scores=to_matrix(found.scores[:, None]),
            vectors=None if found.vectors is None else to_matrix(found.vectors),
        )

    def ExpandCandidates(
        self, request: index_pb2.ExpandCandidatesRequest, context: grpc.ServicerContext
    ) -> Iterator[index_pb2.ExpandCandidatesResponse]:
        """Tell labels and get what they changed."""
        policy, options = self._policy(request.policy)
        pool = self._catalog.get(request.pool)
        campaign = check_name("campaign", request.campaign)
        labels = self._labels(request)
        caller = caller_of(context)
        if request.preview:
            expansion = pool.preview(
                campaign,
                policy=policy,
                options=options,
                labels=labels,
                vectors=request.include_vectors,
                payloads=request.include_payloads,
                caller=caller,
            )
        else:
            expansion = pool.expand(
                campaign,
                policy=policy,
                options=options,
                labels=labels,
                held_version=request.held_version,
                vectors=request.include_vectors,
                payloads=request.include_payloads,
                caller=caller,
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

    def ExplainCandidates(
        self, request: index_pb2.ExplainCandidatesRequest, context: grpc.ServicerContext
    ) -> index_pb2.ExplainCandidatesResponse:
        """Say why items are candidates."""
        campaign = check_name("campaign", request.campaign)
        version, reasons = self._catalog.get(request.pool).explain(campaign, self._ids("ids", request.ids))
        return index_pb2.ExplainCandidatesResponse(pool_version=version, reasons=map(to_reason, reasons))

    def ScoreCandidates(
        self, request: index_pb2.ScoreCandidatesRequest, context: grpc.ServicerContext
    ) -> index_pb2.ScoreCandidatesResponse:
        """Score candidates, or the pool, where they lie."""
        pool = self._catalog.get(request.pool)
        if request.scope not in index_pb2.ScoreScope.values():
            raise InvalidArgument("scope", f"{request.scope} is not a scope")
        over_pool = request.scope == index_pb2.SCORE_SCOPE_POOL
        campaign = "" if over_pool and not request.campaign else check_name("campaign", request.campaign)
        if not 1 <= request.count <= self._limits.max_sample:
            raise InvalidArgument("count", f"{request.count:,} is not in 1 to max_sample, {self._limits.max_sample:,}")
        model = from_model(request, dimension=pool.spec.dimension)
        score = pool.score_pool if over_pool else pool.score_candidates
        begun = time.perf_counter()
        best = score(
            campaign,
            model,
            request.strategy or _DEFAULT_STRATEGY,
            request.count,
            positive_class=request.positive_class,
            caller=caller_of(context),
        )
        return index_pb2.ScoreCandidatesResponse(
            pool_version=best.version,
            candidate_version=best.candidate_version,
            ids=best.ids,
            scores=to_matrix(best.scores[:, None]),
            scored=best.scored,
            score_seconds=time.perf_counter() - begun,
        )

    def GetReachability(
        self, request: index_pb2.GetReachabilityRequest, context: grpc.ServicerContext
    ) -> index_pb2.GetReachabilityResponse:
        """Say how much of the pool can be reached."""
        k = request.k or min(_DEFAULT_REACH_K, self._limits.max_k)
        self._check_k("k", k)
        campaign = check_name("campaign", request.campaign)
        pool = self._catalog.get(request.pool)
        version, reached = pool.reachability(campaign, k, seed=request.seed, caller=caller_of(context))
        return index_pb2.GetReachabilityResponse(
            pool_version=version,
            reachable_share=reached.share,
            standard_error=reached.standard_error,
            exact=reached.exact,
            undecided_share=reached.undecided_share,
            k=k,
        )

    def CreateSnapshot(
        self, request: index_pb2.CreateSnapshotRequest, context: grpc.ServicerContext
    ) -> index_pb2.CreateSnapshotResponse:
        """Write a pool elsewhere."""
        info, size = self._catalog.create_snapshot(request.pool, request.uri)
        return index_pb2.CreateSnapshotResponse(pool_version=info.pool_version, size=size, bytes=info.bytes)

    def RestoreSnapshot(
        self, request: index_pb2.RestoreSnapshotRequest, context: grpc.ServicerContext
    ) -> index_pb2.RestoreSnapshotResponse:
        """Make a pool from a snapshot."""
        return index_pb2.RestoreSnapshotResponse(
            pool=to_pool(self._catalog.restore_snapshot(request.uri, request.name))
        )

    def SetAlias(self, request: index_pb2.SetAliasRequest, context: grpc.ServicerContext) -> index_pb2.SetAliasResponse:
        """Let a name stand for a pool."""
        return index_pb2.SetAliasResponse(previous_pool=self._catalog.set_alias(request.alias, request.pool))

    def DeleteAlias(
        self, request: index_pb2.DeleteAliasRequest, context: grpc.ServicerContext
    ) -> index_pb2.DeleteAliasResponse:
        """Forget an alias."""
        self._catalog.delete_alias(request.alias)
        return index_pb2.DeleteAliasResponse()

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

    def _policy(self, spec: common_pb2.PolicySpec) -> tuple[CandidatePolicy, PolicyOptions]:
        policy, options = resolve(
            spec.name,
            k=spec.k,
            max_candidates=spec.max_candidates,
            subpool_size=spec.subpool_size,
            anchors=spec.anchors,
            seed=spec.seed,
        )
        if spec.growth not in common_pb2.CandidateGrowth.values():
            raise InvalidArgument("policy.growth", f"{spec.growth} is not a kind of growth")
        if spec.growth == common_pb2.CANDIDATE_GROWTH_PICK and policy.name != "seals":
            raise InvalidArgument("policy.growth", f"PICK is for seals, not for {policy.name!r}")
        if spec.k:
            self._check_k("policy.k", spec.k)
        return policy, replace(options, k=min(options.k, self._limits.max_k))

    def _labels(self, request: index_pb2.ExpandCandidatesRequest) -> Labels:
        labelled = self._ids("labelled_ids", request.labelled_ids)
        expand_from = self._ids("expand_from_ids", request.expand_from_ids)
        unknown = set(expand_from).difference(labelled)
        if unknown:
            raise InvalidArgument("expand_from_ids", f"{min(unknown)!r} is not in labelled_ids")
        return Labels(ids=labelled, expand_from=expand_from, classes=_classes(request, len(labelled)))


def _classes(request: index_pb2.ExpandCandidatesRequest, count: int) -> list[tuple[int, ...]]:
    counts, labels = list(request.label_counts), list(request.labels)
    if not counts and not labels:
        return []
    if len(counts) != count:
        raise InvalidArgument("label_counts", f"{len(counts):,} of them for {count:,} labelled_ids")
    if sum(counts) != len(labels):
        raise InvalidArgument("labels", f"{len(labels):,} of them, and label_counts add up to {sum(counts):,}")
    ends = accumulate(counts)
    return [tuple(labels[end - number : end]) for number, end in zip(counts, ends, strict=True)]


def _batches(first: index_pb2.UpsertRequest, others: Iterator[index_pb2.UpsertRequest]) -> Iterator[Records]:
    ended = False
    for request in chain((first,), others):
        if ended:
            raise InvalidArgument("last", "another message follows the last one")
        if request.pool not in ("", first.pool):
            raise InvalidArgument("pool", f"{request.pool[:140]!r} after {first.pool!r}: a stream is for one pool")
        yield from_items(request.items)
        ended = request.last
    if not ended:  # what a caller who dies in the middle leaves looks to gRPC like a stream that ended
        raise InvalidArgument("last", "the stream ended without a last message; nothing of it was kept")


def _chunks(parts: Iterator[Records]) -> Iterator[Records]:
    for part in parts:
        yield from cut(part, _CHUNK_BYTES)
