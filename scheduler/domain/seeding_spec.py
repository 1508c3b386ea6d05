"""How a campaign's first batch is chosen: every field checked, and the defaults."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from sealpool.errors import InvalidArgument
from sealpool.v1 import common_pb2 as c
from sealpool.v1 import learner_pb2 as ln
from sealpool.v1 import scheduler_pb2 as s
from sealpool.validation import check_ids
from sealpool.vocabulary.checking import check_choice, check_enum
from sealpool.vocabulary.strategies import STRATEGIES, Need, resolve_strategy

DEFAULT_STRATEGY = "typiclust"
MAX_QUERIES = 100
MAX_QUERY_BYTES = 16 << 10
_TASKS = {c.TASK_KIND_BINARY: "binary", c.TASK_KIND_MULTICLASS: "multiclass", c.TASK_KIND_MULTILABEL: "multilabel"}
_OPTIONS: Mapping[s.SeedingKind.ValueType, AbstractSet[str]] = {
    s.SEEDING_KIND_RANDOM: frozenset(),
    s.SEEDING_KIND_EXAMPLES: frozenset({"item_ids"}),
    s.SEEDING_KIND_QUERIES: frozenset({"queries", "encoder"}),
    s.SEEDING_KIND_STRATEGY: frozenset({"strategy"}),
    s.SEEDING_KIND_CONCEPT: frozenset({"positives"}),
}


def seeding_of(spec: s.CampaignSpec) -> s.SeedingKind.ValueType:
    """Return how the first batch is chosen."""
    return spec.seeding.kind or s.SEEDING_KIND_RANDOM


def seeding_strategy_of(spec: s.CampaignSpec) -> str:
    """Return the own name of the strategy that picks the first batch."""
    return resolve_strategy(spec.seeding.strategy or DEFAULT_STRATEGY) or DEFAULT_STRATEGY


def positive_class_of(spec: s.CampaignSpec) -> int:
    """Return the index of the class that a concept campaign looks for: the strategy's, or else the second."""
    name = spec.strategy.positive_class
    return list(spec.classes).index(name) if name else 1


def positives_of(spec: s.CampaignSpec, batch: int) -> int:
    """Return how many items of the positive class a first batch of `batch` items has: 5 of 100 unless told."""
    return min(spec.seeding.positives or max(1, round(batch / 20)), batch)


def check_seeding(spec: s.CampaignSpec) -> None:
    """Check how the first batch is chosen. Whether its items are in the pool is asked elsewhere.

    Raises
    ------
    InvalidArgument
        With the field at fault.
    """
    seeding = spec.seeding
    check_enum("spec.seeding.kind", seeding.kind, values=s.SeedingKind.values())
    kind = seeding_of(spec)
    name = s.SeedingKind.Name(kind).removeprefix("SEEDING_KIND_").lower()
    for field, _ in seeding.ListFields():
        if field.name != "kind" and field.name not in _OPTIONS[kind]:
            raise InvalidArgument(f"spec.seeding.{field.name}", f"is not for seeding of kind {name}")
    if kind != s.SEEDING_KIND_RANDOM and not spec.seed_size:
        raise InvalidArgument("spec.seed_size", f"is 0: seeding of kind {name} would choose nothing")
    match kind:
        case s.SEEDING_KIND_EXAMPLES:
            _check_examples(spec)
        case s.SEEDING_KIND_QUERIES:
            _check_queries(seeding)
        case s.SEEDING_KIND_STRATEGY:
            _check_strategy(spec)
        case s.SEEDING_KIND_CONCEPT:
            _check_concept(spec)


def _check_examples(spec: s.CampaignSpec) -> None:
    ids = check_ids("spec.seeding.item_ids", spec.seeding.item_ids)
    if not 1 <= len(ids) <= spec.seed_size:
        raise InvalidArgument("spec.seeding.item_ids", f"has {len(ids):,}, not 1 to seed_size = {spec.seed_size:,}")


def _check_queries(seeding: s.SeedingSpec) -> None:
    if not 1 <= len(seeding.queries) <= MAX_QUERIES:
        raise InvalidArgument("spec.seeding.queries", f"has {len(seeding.queries):,}, not 1 to {MAX_QUERIES}")
    for position, query in enumerate(seeding.queries):
        if not query.strip() or len(query.encode()) > MAX_QUERY_BYTES:
            raise InvalidArgument(f"spec.seeding.queries[{position}]", f"is empty or over {MAX_QUERY_BYTES:,} bytes")
    if not seeding.encoder.encoder:
        raise InvalidArgument("spec.seeding.encoder", "is missing: name the encoder that the pool was embedded with")
    check_enum("spec.seeding.encoder.pooling", seeding.encoder.pooling, values=ln.Pooling.values())


def _check_strategy(spec: s.CampaignSpec) -> None:
    name = spec.seeding.strategy
    entry = STRATEGIES.get(resolve_strategy(name or DEFAULT_STRATEGY) or "")
    without_model = {
        one.name for one in STRATEGIES.values() if Need.MODEL not in one.needs and "positive_class" not in one.options
    }
    if entry is None or entry.name not in without_model:
        check_choice("spec.seeding.strategy", name, without_model)
    elif _TASKS[spec.task] not in entry.tasks:
        raise InvalidArgument("spec.seeding.strategy", f"{entry.name} is not for {_TASKS[spec.task]} tasks")


def _check_concept(spec: s.CampaignSpec) -> None:
    if spec.task != c.TASK_KIND_BINARY:
        raise InvalidArgument("spec.seeding.kind", "concept is for binary campaigns")
    if spec.oracle.name != "dataset":
        raise InvalidArgument("spec.seeding.kind", "concept needs the oracle dataset: nobody else knows the positives")
    if spec.seeding.positives > spec.seed_size:
        raise InvalidArgument(
            "spec.seeding.positives", f"{spec.seeding.positives:,} is over seed_size = {spec.seed_size:,}"
        )
