"""What each method of the services asks of a token: a role, and the pools that its request names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor

from sealpool.errors import PermissionDenied
from sealpool.runtime.tokens import Role, Token

PoolsOf = Callable[[Any], Sequence[tuple[str, str]]]
"""From a request, or the first message of a stream, to its pools: pairs of a field and a name, "" if not given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """What one method asks for.

    Parameters
    ----------
    role
        The lowest role that may call it.
    pools_of
        The pools that a request is about, as it names them: aliases are not resolved. None: the request tells no pool,
        and a token for some pools only may not call it.
    """

    role: Role
    pools_of: PoolsOf | None = None

    def check(self, token: Token, request: Any) -> None:
        """Raise PermissionDenied, naming the field, unless every pool of the request is one of the token's.

        A pool that the request leaves open is refused too: a default may be anyone's.
        """
        if token.is_for_all_pools:
            return
        if self.pools_of is None:
            raise PermissionDenied(
                f"pool: token {token.name!r} is for some pools only, and this call is not", field="pool"
            )
        for field, pool in self.pools_of(request):
            if not token.may_use(pool):
                named = f"{pool!r} is" if pool else "not named, and it may be"
                raise PermissionDenied(f"{field}: {named} none of the pools of token {token.name!r}", field=field)


def pools_in(*fields: str) -> PoolsOf:
    """Return what reads the pools in these fields of a request; a dot leads into a message: "spec.name"."""
    getters = [(field, attrgetter(field)) for field in fields]
    return lambda request: [(field, get(request)) for field, get in getters]


def no_pools(_request: Any) -> tuple[tuple[str, str], ...]:
    """Say that a request is about no pool, or is answered with the caller's own alone."""
    return ()


def check_complete(access: Mapping[str, Access], descriptors: Sequence[ServiceDescriptor]) -> None:
    """Raise ValueError unless there is one entry a method, and none more."""
    methods = {method.name for descriptor in descriptors for method in descriptor.methods}
    wrong = sorted(methods.symmetric_difference(access))
    if wrong:
        raise ValueError(f"access must name every method and no other: {', '.join(wrong)}")


def _reembedding_pools(request: Any) -> list[tuple[str, str]]:
    pools = [("source_pool", request.source_pool), ("target_pool", request.target_pool)]
    return [*pools, *([("alias", request.alias)] if request.alias else [])]


_POOL = pools_in("pool")
_NAME = pools_in("name")
_HEADER = pools_in("header.pool")

INDEX_ACCESS: Mapping[str, Access] = {
    "GetPool": Access(role=Role.READ, pools_of=_NAME),
    "ListPools": Access(role=Role.READ, pools_of=no_pools),
    "GetItems": Access(role=Role.READ, pools_of=_POOL),
    "ScanItems": Access(role=Role.READ, pools_of=_POOL),
    "SampleItems": Access(role=Role.READ, pools_of=_POOL),
    "Search": Access(role=Role.READ, pools_of=_POOL),
    "ListCandidates": Access(role=Role.READ, pools_of=_POOL),
    "ExplainCandidates": Access(role=Role.READ, pools_of=_POOL),
    "ScoreCandidates": Access(role=Role.READ, pools_of=_POOL),
    "GetReachability": Access(role=Role.READ, pools_of=_POOL),
    "Upsert": Access(role=Role.WRITE, pools_of=_POOL),
    "DeleteItems": Access(role=Role.WRITE, pools_of=_POOL),
    "ExpandCandidates": Access(role=Role.WRITE, pools_of=_POOL),
    "DropCandidates": Access(role=Role.WRITE, pools_of=_POOL),
    "CreatePool": Access(role=Role.ADMIN, pools_of=pools_in("spec.name")),
    "DeletePool": Access(role=Role.ADMIN, pools_of=_NAME),
    "CreateSnapshot": Access(role=Role.ADMIN, pools_of=_POOL),
    # A snapshot of any pool may lie there: its content cannot be told from the request.
    "RestoreSnapshot": Access(role=Role.ADMIN),
    # Both: an alias of the token's own on another's pool would open that one.
    "SetAlias": Access(role=Role.ADMIN, pools_of=pools_in("alias", "pool")),
    "DeleteAlias": Access(role=Role.ADMIN, pools_of=pools_in("alias")),
}

LEARNER_ACCESS: Mapping[str, Access] = {
    "Predict": Access(role=Role.READ, pools_of=_POOL),
    "Evaluate": Access(role=Role.READ, pools_of=_HEADER),
    "Train": Access(role=Role.WRITE, pools_of=_HEADER),
    "CrossPredict": Access(role=Role.WRITE, pools_of=_HEADER),
    "Propagate": Access(role=Role.WRITE, pools_of=_HEADER),
    "Select": Access(role=Role.WRITE, pools_of=_HEADER),
    # Loads encoders and holds the device: work, though nothing is kept.
    "Embed": Access(role=Role.WRITE, pools_of=no_pools),
    # It makes a pool, and may give it an alias.
    "StartReembedding": Access(role=Role.ADMIN, pools_of=_reembedding_pools),
    # A job is named by its id alone, which tells no pool.
    "WatchReembedding": Access(role=Role.READ),
    "CancelReembedding": Access(role=Role.WRITE),
}


def scheduler_access(pool_of_campaign: Callable[[str], str] | None = None) -> Mapping[str, Access]:
    """Return the table of the scheduler.

    Parameters
    ----------
    pool_of_campaign
        From a campaign's name to its pool, "" where there is no such campaign (which a token for some pools is then
        refused, as for one of another pool). None: such a token may create campaigns and list none.
    """

    def campaign_in(field: str) -> PoolsOf | None:
        if pool_of_campaign is None:
            return None
        return lambda request: [(field, pool_of_campaign(getattr(request, field)))]

    by_name, by_campaign = campaign_in("name"), campaign_in("campaign")
    return {
        "GetCampaign": Access(role=Role.READ, pools_of=by_name),
        "ListCampaigns": Access(role=Role.READ, pools_of=no_pools),
        "ListLabels": Access(role=Role.READ, pools_of=by_campaign),
        "ListRounds": Access(role=Role.READ, pools_of=by_campaign),
        "WatchCampaign": Access(role=Role.READ, pools_of=by_campaign),
        "ListAnnotations": Access(role=Role.READ, pools_of=by_campaign),
        "GetOracleReport": Access(role=Role.READ, pools_of=by_campaign),
        "LeaseTasks": Access(role=Role.WRITE, pools_of=by_campaign),
        "RenewLeases": Access(role=Role.WRITE, pools_of=by_campaign),
        "ReleaseTasks": Access(role=Role.WRITE, pools_of=by_campaign),
        "ReviewLabels": Access(role=Role.WRITE, pools_of=by_campaign),
        "DrawAudit": Access(role=Role.WRITE, pools_of=by_campaign),
        "SubmitLabels": Access(role=Role.WRITE, pools_of=by_campaign),
        "RunRound": Access(role=Role.WRITE, pools_of=by_campaign),
        "PauseCampaign": Access(role=Role.WRITE, pools_of=by_name),
        "ResumeCampaign": Access(role=Role.WRITE, pools_of=by_name),
        "CreateCampaign": Access(role=Role.ADMIN, pools_of=_campaign_pools),
        "UpdateCampaign": Access(role=Role.ADMIN, pools_of=_campaign_pools),
        "ArchiveCampaign": Access(role=Role.ADMIN, pools_of=by_name),
        "Erase": Access(role=Role.ADMIN, pools_of=by_campaign),
        # StreamService. Items join the campaign's pool, as by Upsert.
        "Consider": Access(role=Role.WRITE, pools_of=by_campaign),
        "ConsiderBatch": Access(role=Role.WRITE, pools_of=by_campaign),
        "Synthesize": Access(role=Role.WRITE, pools_of=by_campaign),
        "GetStream": Access(role=Role.READ, pools_of=by_campaign),
        "ListSynthetic": Access(role=Role.READ, pools_of=by_campaign),
        # LabelStudioService. A link sends what the pool says to another server.
        "LinkLabelStudio": Access(role=Role.ADMIN, pools_of=by_campaign),
        "UnlinkLabelStudio": Access(role=Role.ADMIN, pools_of=by_campaign),
        "SyncLabelStudio": Access(role=Role.WRITE, pools_of=by_campaign),
        "GetLabelStudioLink": Access(role=Role.READ, pools_of=by_campaign),
    }


def _campaign_pools(request: Any) -> list[tuple[str, str]]:
    evaluation_pool = request.spec.evaluation_pool
    evaluated_on = [("spec.evaluation_pool", evaluation_pool)] if evaluation_pool else []
    return [("spec.pool", request.spec.pool), *evaluated_on]
