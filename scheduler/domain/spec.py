"""Campaign specs: every field checked, and the defaults of those that may be left out.

A spec is kept as the message it came in, so that a newer client's fields survive an older scheduler, and a default is
filled in where it is used.
"""

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from sealpool.errors import InvalidArgument
from sealpool.v1 import common_pb2 as c
from sealpool.v1 import scheduler_pb2 as s
from sealpool.validation import check_name

MODELS = frozenset({"logistic_regression"})
STRATEGIES = frozenset(
    {"random", "least_confidence", "margin", "entropy", "most_likely_positive", "information_density"}
)
POLICY_OPTIONS: Mapping[str, frozenset[str]] = {
    "seals": frozenset({"k", "max_candidates"}),
    "anchoral": frozenset({"k", "subpool_size", "anchors", "seed"}),
    "random_subset": frozenset({"subpool_size", "seed"}),
    "full": frozenset(),
}
"""The names that the contract lists, and of policies the options that it gives each. The registries live in the learner
and the index server, which cannot be asked; a wrong name should be refused when the campaign begins, not hours later in
its first round. How large an option may be is the index server's to say: it has settings for that."""
DEFAULT_POLICY = "seals"
GROWS_BY_PICK = "seals"

MAX_CLASSES = 10_000
MAX_CLASS_BYTES = 256
MAX_BATCH = 100_000
MAX_ITERATIONS = 10_000
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
    _check_model(spec.model)
    _check_strategy(spec)
    _check_policy(spec.policy)
    _check_expand_from(spec)
    _check_sizes(spec)
    _check_range("spec.exploration", spec.exploration, 0, 1)
    _check_enum("spec.fill", spec.fill, values=s.Fill.values())
    _check_rule(spec.rule)
    _check_choice("spec.oracle.name", spec.oracle.name, oracles | {""})
    if spec.lease_seconds != 0:
        check_lease("spec.lease_seconds", spec.lease_seconds)


def check_lease(field: str, lease_s: float) -> float:
    """Return a lease of 1 to 604,800 seconds, or raise InvalidArgument."""
    _check_range(field, lease_s, 1, MAX_LEASE_S)
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


def _check_model(model: c.ModelSpec) -> None:
    _check_choice("spec.model.name", model.name, MODELS | {""})
    if not (math.isfinite(model.l2) and model.l2 >= 0):
        raise InvalidArgument("spec.model.l2", f"{model.l2} is not a finite number ≥ 0")
    if model.max_iterations > MAX_ITERATIONS:
        raise InvalidArgument("spec.model.max_iterations", f"{model.max_iterations:,} is over {MAX_ITERATIONS:,}")
    _check_enum("spec.model.class_weight", model.class_weight, values=c.ClassWeight.values())


def _check_strategy(spec: s.CampaignSpec) -> None:
    strategy = spec.strategy
    _check_choice("spec.strategy.name", strategy.name, STRATEGIES | {""})
    _check_choice("spec.strategy.base", strategy.base, STRATEGIES - {"information_density"} | {""})
    if strategy.HasField("beta") and not (math.isfinite(strategy.beta) and strategy.beta >= 0):
        raise InvalidArgument("spec.strategy.beta", f"{strategy.beta} is not a finite number ≥ 0")
    _check_enum("spec.strategy.density_over", strategy.density_over, values=c.DensityOver.values())
    if strategy.positive_class:
        _check_choice("spec.strategy.positive_class", strategy.positive_class, frozenset(spec.classes))
    elif "most_likely_positive" in (strategy.name, strategy.base) and spec.task != c.TASK_KIND_BINARY:
        raise InvalidArgument("spec.strategy.positive_class", "most_likely_positive must be told which class it is")


def _check_policy(policy: c.PolicySpec) -> None:
    _check_choice("spec.policy.name", policy.name, POLICY_OPTIONS.keys() | {""})
    name = policy.name or DEFAULT_POLICY
    has = POLICY_OPTIONS[name]
    told = {
        "k": policy.k,
        "max_candidates": policy.max_candidates,
        "subpool_size": policy.subpool_size,
        "anchors": policy.anchors,
        "seed": policy.seed,
    }
    for option, value in told.items():
        if value and option not in has:
            raise InvalidArgument(f"spec.policy.{option}", f"{name} has no such option; it has {_words(has)}")
    _check_enum("spec.policy.growth", policy.growth, values=c.CandidateGrowth.values())
    if policy.growth == c.CANDIDATE_GROWTH_PICK and name != GROWS_BY_PICK:
        raise InvalidArgument("spec.policy.growth", f"only {GROWS_BY_PICK} grows after each pick, not {name}")


def _words(options: AbstractSet[str]) -> str:
    return ", ".join(sorted(options)) or "none"


def _check_expand_from(spec: s.CampaignSpec) -> None:
    seen: set[str] = set()
    for name in spec.expand_from_classes:
        _check_choice("spec.expand_from_classes", name, frozenset(spec.classes))
        if name in seen:
            raise InvalidArgument("spec.expand_from_classes", f"{name!r} is repeated")
        seen.add(name)


def _check_sizes(spec: s.CampaignSpec) -> None:
    if not 1 <= spec.batch_size <= MAX_BATCH:
        raise InvalidArgument("spec.batch_size", f"{spec.batch_size:,} is not 1 to {MAX_BATCH:,}")
    if spec.seed_size > MAX_BATCH:
        raise InvalidArgument("spec.seed_size", f"{spec.seed_size:,} is over {MAX_BATCH:,}")
    if spec.budget < max(1, spec.seed_size):
        raise InvalidArgument("spec.budget", f"{spec.budget:,} is less than max(1, seed_size = {spec.seed_size:,})")


def _check_rule(rule: s.RoundRule) -> None:
    if rule.interval_seconds != 0:
        _check_range("spec.rule.interval_seconds", rule.interval_seconds, MIN_INTERVAL_S, MAX_INTERVAL_S)


def _check_choice(field: str, value: str, choices: AbstractSet[str]) -> None:
    if value in choices:
        return
    known = sorted(choices - {""})
    shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    raise InvalidArgument(field, f"{value[:140]!r} is not one of {shown}")


def _check_enum(field: str, value: int, *, values: Sequence[int]) -> None:
    if value not in values:
        raise InvalidArgument(field, f"{value} is not a value that the contract names")


def _check_range(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also refuses NaN
        raise InvalidArgument(field, f"{value} is not {low:,} to {high:,}")
