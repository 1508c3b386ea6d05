"""Every field of a campaign's spec is checked, and named where it is wrong."""

from typing import Any

import pytest

from scheduler.domain.spec import (
    batch_of,
    check_spec,
    expanding_classes_of,
    lease_s_of,
    metadata_field_of,
    normalised,
    oracle_of,
)
from sealpool.errors import InvalidArgument
from sealpool.v1 import common_pb2 as c
from sealpool.v1 import scheduler_pb2 as s
from tests.unit.scheduler.world import make_spec

ORACLES = frozenset({"external", "dataset"})
NAN, INFINITY = float("nan"), float("inf")
MULTICLASS = {"task": c.TASK_KIND_MULTICLASS, "classes": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "spec.name"),
        ({"name": "-x"}, "spec.name"),
        ({"name": "x" * 129}, "spec.name"),
        ({"pool": "a/b"}, "spec.pool"),
        ({"task": c.TASK_KIND_UNSPECIFIED}, "spec.task"),
        ({"task": 9}, "spec.task"),
        ({"classes": []}, "spec.classes"),
        ({"classes": ["a"]}, "spec.classes"),
        ({"classes": ["a", "b", "c"]}, "spec.classes"),
        ({"classes": ["a", "a"]}, "spec.classes"),
        ({"classes": ["a", ""]}, "spec.classes"),
        ({"classes": ["a", "é" * 129]}, "spec.classes"),
        ({"task": c.TASK_KIND_MULTICLASS, "classes": ["a"]}, "spec.classes"),
        ({"task": c.TASK_KIND_MULTICLASS, "classes": [str(i) for i in range(10_001)]}, "spec.classes"),
        ({"task": c.TASK_KIND_MULTILABEL, "classes": []}, "spec.classes"),
        ({"model": c.ModelSpec(name="oracle_of_delphi")}, "spec.model.name"),
        ({"model": c.ModelSpec(l2=-1)}, "spec.model.l2"),
        ({"model": c.ModelSpec(l2=NAN)}, "spec.model.l2"),
        ({"model": c.ModelSpec(l2=INFINITY)}, "spec.model.l2"),
        ({"model": c.ModelSpec(max_iterations=10_001)}, "spec.model.max_iterations"),
        ({"model": c.ModelSpec(class_weight=7)}, "spec.model.class_weight"),
        ({"strategy": c.StrategySpec(name="guess")}, "spec.strategy.name"),
        ({"strategy": c.StrategySpec(density_over=5)}, "spec.strategy.density_over"),
        ({"strategy": c.StrategySpec(aggregate=5)}, "spec.strategy.aggregate"),
        ({"strategy": c.StrategySpec(name="most_likely_positive", positive_class="z")}, "spec.strategy.positive_class"),
        ({**MULTICLASS, "strategy": c.StrategySpec(name="most_likely_positive")}, "spec.strategy.positive_class"),
        ({"policy": c.PolicySpec(name="everything")}, "spec.policy.name"),
        ({"policy": c.PolicySpec(subpool_size=5)}, "spec.policy.subpool_size"),
        ({"policy": c.PolicySpec(seed=1)}, "spec.policy.seed"),
        ({"policy": c.PolicySpec(name="full", k=5)}, "spec.policy.k"),
        ({"policy": c.PolicySpec(name="random_subset", anchors=5)}, "spec.policy.anchors"),
        ({"policy": c.PolicySpec(name="anchoral", max_candidates=5)}, "spec.policy.max_candidates"),
        ({"policy": c.PolicySpec(growth=9)}, "spec.policy.growth"),
        ({"policy": c.PolicySpec(name="anchoral", growth=c.CANDIDATE_GROWTH_PICK)}, "spec.policy.growth"),
        ({"expand_from_classes": ["z"]}, "spec.expand_from_classes"),
        ({"expand_from_classes": ["a", "a"]}, "spec.expand_from_classes"),
        ({"batch_size": 0}, "spec.batch_size"),
        ({"batch_size": 100_001}, "spec.batch_size"),
        ({"batch_share": 0.5}, "spec.batch_share"),
        ({"batch_size": 0, "batch_share": 1.01}, "spec.batch_share"),
        ({"batch_size": 0, "batch_share": -0.5}, "spec.batch_share"),
        ({"batch_size": 0, "batch_share": NAN}, "spec.batch_share"),
        ({"budget": 0, "seed_size": 0}, "spec.budget"),
        ({"budget": 5, "seed_size": 6}, "spec.budget"),
        ({"budget": 200_000, "seed_size": 100_001}, "spec.seed_size"),
        ({"exploration": 1.01}, "spec.exploration"),
        ({"exploration": -0.01}, "spec.exploration"),
        ({"exploration": NAN}, "spec.exploration"),
        ({"fill": 3}, "spec.fill"),
        ({"rule": s.RoundRule(interval_seconds=0.5)}, "spec.rule.interval_seconds"),
        ({"rule": s.RoundRule(interval_seconds=-1)}, "spec.rule.interval_seconds"),
        ({"rule": s.RoundRule(interval_seconds=NAN)}, "spec.rule.interval_seconds"),
        ({"rule": s.RoundRule(interval_seconds=INFINITY)}, "spec.rule.interval_seconds"),
        ({"oracle": s.OracleSpec(name="pythia")}, "spec.oracle.name"),
        ({"evaluation_pool": "?"}, "spec.evaluation_pool"),
        ({"evaluation_pool": "pool"}, "spec.evaluation_pool"),
        ({"lease_seconds": 0.5}, "spec.lease_seconds"),
        ({"lease_seconds": 604_801}, "spec.lease_seconds"),
        ({"lease_seconds": NAN}, "spec.lease_seconds"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_spec(make_spec(**changes), oracles=ORACLES)
    assert caught.value.field == field
    assert field in caught.value.message


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"seed_size": 0, "budget": 1},
        {"seed_size": 20},
        {"task": c.TASK_KIND_MULTILABEL, "classes": ["a"]},
        {**MULTICLASS, "strategy": c.StrategySpec(name="most_likely_positive", positive_class="c")},
        {"strategy": c.StrategySpec(name="most_likely_positive")},
        {"strategy": c.StrategySpec(name="information_density", base="margin", beta=0)},
        {"policy": c.PolicySpec(name="full"), "expand_from_classes": ["b"]},
        {"policy": c.PolicySpec(k=5, max_candidates=9, growth=c.CANDIDATE_GROWTH_PICK)},
        {"policy": c.PolicySpec(name="seals", growth=c.CANDIDATE_GROWTH_ROUND)},
        {"policy": c.PolicySpec(name="anchoral", k=5, subpool_size=9, anchors=2, seed=1)},
        {"policy": c.PolicySpec(name="random_subset", subpool_size=9, seed=1)},
        {"exploration": 1, "fill": s.FILL_NONE, "lease_seconds": 1, "evaluation_pool": "held-out"},
        {"rule": s.RoundRule(after_labels=3, interval_seconds=1, cron="* * * * *"), "oracle": s.OracleSpec()},
        {"seed": 2**64 - 1},
        {"batch_size": 0, "batch_share": 1},
    ],
)
def test_a_right_spec_passes(changes: dict[str, Any]) -> None:
    check_spec(make_spec(**changes), oracles=ORACLES)


def test_what_is_left_out_has_a_default() -> None:
    spec = make_spec()
    assert (lease_s_of(spec), oracle_of(spec), metadata_field_of(spec)) == (3600, "external", "labels")
    assert expanding_classes_of(spec) is None
    assert expanding_classes_of(make_spec(expand_from_classes=["b"])) == {1}


@pytest.mark.parametrize(
    ("share", "pool_size", "batch"),
    [(0.1, 30, 3), (0.1, 31, 4), (0.07, 100, 7), (1e-9, 5, 1), (1.0, 5, 5), (1.0, 3_000_000, 100_000), (0.5, 0, 1)],
)
def test_a_share_of_the_pool_is_rounded_up_to_whole_items_as_it_is_written(
    share: float, pool_size: int, batch: int
) -> None:
    assert batch_of(make_spec(batch_size=0, batch_share=share), pool_size=pool_size) == batch


def test_a_count_of_items_does_not_look_at_the_pool() -> None:
    assert batch_of(make_spec(batch_size=7), pool_size=0) == 7


def test_a_campaign_keeps_its_strategies_under_their_own_names() -> None:
    told = make_spec(strategy=c.StrategySpec(name="DensityWeighted", base="Breaking_Ties", beta=2))
    kept = normalised(told)
    assert (kept.strategy.name, kept.strategy.base, kept.strategy.beta) == ("information_density", "margin", 2)
    assert told.strategy.name == "DensityWeighted"
    assert not normalised(make_spec()).HasField("strategy")
