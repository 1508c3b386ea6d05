"""Campaign specs: every field checked, and the defaults of those that may be left out.

A spec is kept as the message it came in, so that a newer client's fields survive an older scheduler, and a default is
filled in where it is used. Only aliases of strategies are replaced by the strategies' own names.
"""

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from fractions import Fraction

from scheduler.domain.annotation_spec import check_annotation
from scheduler.domain.evaluation_spec import check_evaluation
from scheduler.domain.llm_spec import check_llm
from scheduler.domain.seeding_spec import check_seeding
from scheduler.domain.stopping_spec import check_stopping
from scheduler.domain.strategy_spec import check_strategy, own_names
from scheduler.domain.stream_spec import check_stream
from sealpool.errors import InvalidArgument
from sealpool.v1 import common_pb2 as c
from sealpool.v1 import scheduler_pb2 as s
from sealpool.validation import check_name
from sealpool.vocabulary.checking import check_choice, check_enum, check_options, check_range
from sealpool.vocabulary.model_spec import check_model

POLICY_OPTIONS: Mapping[str, frozenset[str]] = {
    "seals": frozenset({"k", "max_candidates"}),
    "anchoral": frozenset({"k", "subpool_size", "anchors", "seed"}),
    "random_subset": frozenset({"subpool_size", "seed"}),
    "full": frozenset(),
}
"""The policies that the contract lists, with the options that it gives each. Their registry lives in the index server,
which cannot be asked; a wrong name should be refused when the campaign begins, not hours later in its first round. How
large an option may be is the index server's to say: it has settings for that."""
DEFAULT_POLICY = "seals"
GROWS_BY_PICK = "seals"

MAX_CLASSES = 10_000
MAX_CLASS_BYTES = 256
MAX_BATCH = 100_000
MAX_LEASE_S = 604_800
DEFAULT_LEASE_S = 3_600.0
DEFAULT_ORACLE = "external"
DEFAULT_METADATA_FIELD = "labels"
MIN_INTERVAL_S = 1.0
MAX_INTERVAL_S = 366 * 86_400.0


def check_spec(spec: s.CampaignSpec, *, oracles: AbstractSet[str]) -> None:
    """Check every field on its own and against the others. Whether the pools exist is asked elsewhere.

    Parameters
    ----------
    oracles
        Names in the registry of oracles.

    Raises
    ------
    InvalidArgument
        With the field at fault, for example "spec.batch_size".
    """
    check_name("spec.name", spec.name)
    check_name("spec.pool", spec.pool)
    _check_evaluation_pool(spec)
    _check_classes(spec)
    check_model(spec.model, "spec.model")
    _check_policy(spec.policy)
    check_strategy(spec)
    _check_expand_from(spec)
    _check_sizes(spec)
    check_range("spec.exploration", spec.exploration, 0, 1)
    check_enum("spec.fill", spec.fill, values=s.Fill.values())
    _check_rule(spec.rule)
    check_choice("spec.oracle.name", spec.oracle.name, oracles | {""})
    _check_other_class(spec)
    check_annotation(spec)
    check_seeding(spec)
    check_evaluation(spec)
    check_stopping(spec)
    check_llm(spec)
    check_stream(spec)
    if spec.lease_seconds != 0:
        check_lease("spec.lease_seconds", spec.lease_seconds)


def normalised(spec: s.CampaignSpec) -> s.CampaignSpec:
    """Return a spec that was checked, with strategies under their own names."""
    named = s.CampaignSpec()
    named.CopyFrom(spec)
    if spec.HasField("strategy"):
        named.strategy.CopyFrom(own_names(spec.strategy))
    return named


def batch_of(spec: s.CampaignSpec, *, pool_size: int) -> int:
    """Return how many items a round takes from a pool of `pool_size`, where the budget and the pool have so many.

    A share is taken as it is written, so that 0.1 of 30 items are 3, and not the 4 of binary fractions.
    """
    if spec.batch_size:
        return spec.batch_size
    return min(max(1, math.ceil(Fraction(repr(spec.batch_share)) * pool_size)), MAX_BATCH)


def check_lease(field: str, lease_s: float) -> float:
    """Return a lease of 1 to 604,800 seconds, or raise InvalidArgument."""
    check_range(field, lease_s, 1, MAX_LEASE_S)
    return lease_s


def lease_s_of(spec: s.CampaignSpec) -> float:
    """Return how long a task is leased unless the annotator says otherwise."""
    return spec.lease_seconds or DEFAULT_LEASE_S


def oracle_of(spec: s.CampaignSpec) -> str:
    """Return the name of the campaign's oracle."""
    return spec.oracle.name or DEFAULT_ORACLE


def metadata_field_of(spec: s.CampaignSpec) -> str:
    """Return the metadata field that the data-set oracle reads."""
    return spec.oracle.metadata_field or DEFAULT_METADATA_FIELD


def expanding_classes_of(spec: s.CampaignSpec) -> frozenset[int] | None:
    """Return the indices of the classes whose items bring their neighbours; None means every item does."""
    if not spec.expand_from_classes:
        return None
    return frozenset(list(spec.classes).index(name) for name in spec.expand_from_classes)


def _check_evaluation_pool(spec: s.CampaignSpec) -> None:
    if not spec.evaluation_pool:
        return
    check_name("spec.evaluation_pool", spec.evaluation_pool)
    if spec.evaluation_pool == spec.pool:
        raise InvalidArgument("spec.evaluation_pool", "is the pool itself: its items would be picked and trained on")


def _check_classes(spec: s.CampaignSpec) -> None:
    if spec.task not in (c.TASK_KIND_BINARY, c.TASK_KIND_MULTICLASS, c.TASK_KIND_MULTILABEL):
        raise InvalidArgument("spec.task", "is not TASK_KIND_BINARY, TASK_KIND_MULTICLASS or TASK_KIND_MULTILABEL")
    count = len(spec.classes)
    least = 1 if spec.task == c.TASK_KIND_MULTILABEL else 2
    if not least <= count <= MAX_CLASSES:
        raise InvalidArgument("spec.classes", f"has {count:,} classes; this task takes {least} to {MAX_CLASSES:,}")
    if spec.task == c.TASK_KIND_BINARY and count != 2:
        raise InvalidArgument("spec.classes", f"has {count:,} classes; a binary task has exactly two")
    seen: set[str] = set()
    for position, name in enumerate(spec.classes):
        if not 1 <= len(name.encode()) <= MAX_CLASS_BYTES:
            raise InvalidArgument("spec.classes", f"class {position} is empty or over {MAX_CLASS_BYTES} bytes")
        if name in seen:
            raise InvalidArgument("spec.classes", f"{name!r} is repeated")
        seen.add(name)


def _check_other_class(spec: s.CampaignSpec) -> None:
    if not spec.oracle.other_class:
        return
    if spec.oracle.name != "dataset":
        raise InvalidArgument("spec.oracle.other_class", "is for the oracle dataset")
    check_choice("spec.oracle.other_class", spec.oracle.other_class, frozenset(spec.classes))


def _check_policy(policy: c.PolicySpec) -> None:
    check_choice("spec.policy.name", policy.name, POLICY_OPTIONS.keys() | {""})
    name = policy.name or DEFAULT_POLICY
    told = {
        "k": policy.k,
        "max_candidates": policy.max_candidates,
        "subpool_size": policy.subpool_size,
        "anchors": policy.anchors,
        "seed": policy.seed,
    }
    check_options("spec.policy", name, {option for option, value in told.items() if value}, POLICY_OPTIONS[name])
    check_enum("spec.policy.growth", policy.growth, values=c.CandidateGrowth.values())
    if policy.growth == c.CANDIDATE_GROWTH_PICK and name != GROWS_BY_PICK:
        raise InvalidArgument("spec.policy.growth", f"only {GROWS_BY_PICK} grows after each pick, not {name}")


def _check_expand_from(spec: s.CampaignSpec) -> None:
    seen: set[str] = set()
    for name in spec.expand_from_classes:
        check_choice("spec.expand_from_classes", name, frozenset(spec.classes))
        if name in seen:
            raise InvalidArgument("spec.expand_from_classes", f"{name!r} is repeated")
        seen.add(name)


def _check_sizes(spec: s.CampaignSpec) -> None:
    if spec.batch_share == 0:
        check_range("spec.batch_size", spec.batch_size, 1, MAX_BATCH)
    elif not 0 < spec.batch_share <= 1:
        raise InvalidArgument("spec.batch_share", f"{spec.batch_share} is not above 0 and at most 1")
    elif spec.batch_size:
        raise InvalidArgument("spec.batch_share", f"is given beside batch_size = {spec.batch_size:,}: give one of them")
    if spec.seed_size > MAX_BATCH:
        raise InvalidArgument("spec.seed_size", f"{spec.seed_size:,} is over {MAX_BATCH:,}")
    if spec.budget < max(1, spec.seed_size):
        raise InvalidArgument("spec.budget", f"{spec.budget:,} is less than max(1, seed_size = {spec.seed_size:,})")


def _check_rule(rule: s.RoundRule) -> None:
    if rule.interval_seconds != 0:
        check_range("spec.rule.interval_seconds", rule.interval_seconds, MIN_INTERVAL_S, MAX_INTERVAL_S)
