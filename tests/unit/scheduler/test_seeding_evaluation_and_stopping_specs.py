"""Seeding, in-pool evaluation and stopping criteria of a spec are checked, and named where they are wrong."""

from typing import Any

import pytest

from scheduler.domain.evaluation_spec import check_pool_has_room
from scheduler.domain.seeding_spec import positive_class_of, positives_of, seeding_of, seeding_strategy_of
from scheduler.domain.spec import check_spec
from scheduler.domain.stopping_spec import measure_of, patience_of, stop_set_of
from sealpool.errors import FailedPrecondition, InvalidArgument
from sealpool.v1 import common_pb2 as c
from sealpool.v1 import learner_pb2
from sealpool.v1 import scheduler_pb2 as s
from tests.unit.scheduler.world import DATASET, make_spec

ORACLES = frozenset({"external", "dataset"})
ENCODER = learner_pb2.EmbedHeader(encoder="e")
EXAMPLES, QUERIES, STRATEGY, CONCEPT = (
    s.SEEDING_KIND_EXAMPLES,
    s.SEEDING_KIND_QUERIES,
    s.SEEDING_KIND_STRATEGY,
    s.SEEDING_KIND_CONCEPT,
)
MULTICLASS = {"task": c.TASK_KIND_MULTICLASS, "classes": ["a", "b", "c"]}


def seeding(kind: s.SeedingKind.ValueType = s.SEEDING_KIND_UNSPECIFIED, **fields: Any) -> dict[str, Any]:
    return {"seeding": s.SeedingSpec(kind=kind, **fields)}


def evaluation(**fields: int) -> dict[str, Any]:
    return {"evaluation": s.EvaluationSpec(**fields)}


def stopping(**fields: Any) -> dict[str, Any]:
    return {"stopping": s.StoppingSpec(**fields)}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seeding": s.SeedingSpec(kind=99)}, "spec.seeding.kind"),  # type: ignore[arg-type]
        (seeding(item_ids=["x"]), "spec.seeding.item_ids"),
        (seeding(EXAMPLES, item_ids=["x"], positives=3), "spec.seeding.positives"),
        (seeding(EXAMPLES), "spec.seeding.item_ids"),
        (seeding(EXAMPLES, item_ids=["x", "x"]), "spec.seeding.item_ids"),
        (seeding(EXAMPLES, item_ids=[""]), "spec.seeding.item_ids"),
        (seeding(EXAMPLES, item_ids=[str(n) for n in range(7)]), "spec.seeding.item_ids"),
        ({**seeding(EXAMPLES, item_ids=["x"]), "seed_size": 0}, "spec.seed_size"),
        (seeding(QUERIES, encoder=ENCODER), "spec.seeding.queries"),
        (seeding(QUERIES, queries=["q"] * 101, encoder=ENCODER), "spec.seeding.queries"),
        (seeding(QUERIES, queries=["q", " "], encoder=ENCODER), "spec.seeding.queries[1]"),
        (seeding(QUERIES, queries=["é" * (8 << 10) + "x"], encoder=ENCODER), "spec.seeding.queries[0]"),
        (seeding(QUERIES, queries=["q"]), "spec.seeding.encoder"),
        (seeding(STRATEGY, strategy="entropy"), "spec.seeding.strategy"),
        (seeding(STRATEGY, strategy="active_search"), "spec.seeding.strategy"),
        (seeding(STRATEGY, strategy="nonsense"), "spec.seeding.strategy"),
        (seeding(CONCEPT), "spec.seeding.kind"),
        ({**seeding(CONCEPT), "oracle": DATASET, **MULTICLASS}, "spec.seeding.kind"),
        ({**seeding(CONCEPT, positives=7), "oracle": DATASET}, "spec.seeding.positives"),
        (evaluation(items=100_001), "spec.evaluation.items"),
        (evaluation(test_pool=100_001, test_points=1), "spec.evaluation.test_pool"),
        (evaluation(test_pool=5), "spec.evaluation.test_points"),
        (evaluation(test_points=5), "spec.evaluation.test_points"),
        (evaluation(test_pool=5, test_points=6), "spec.evaluation.test_points"),
        ({**evaluation(items=5), "evaluation_pool": "held-out"}, "spec.evaluation.items"),
        ({**evaluation(test_pool=5, test_points=1), "evaluation_pool": "held-out"}, "spec.evaluation.test_pool"),
        (evaluation(items=15), "spec.evaluation.items"),
        (evaluation(items=13, test_pool=9, test_points=2), "spec.evaluation.items"),
        (stopping(target_score=1.1), "spec.stopping.target_score"),
        (stopping(kappa=-0.1), "spec.stopping.kappa"),
        (stopping(overall_uncertainty=float("nan")), "spec.stopping.overall_uncertainty"),
        (stopping(classification_change=2), "spec.stopping.classification_change"),
        (stopping(target_score=0.9), "spec.stopping.target_score"),
        (stopping(target_measure="accuracy"), "spec.stopping.target_measure"),
        ({**stopping(target_score=0.9, target_measure="f7"), **evaluation(items=5)}, "spec.stopping.target_measure"),
        (
            {**stopping(target_score=0.9, target_measure="macro_f1"), **evaluation(test_pool=5, test_points=1)},
            "spec.stopping.target_measure",
        ),
        (stopping(stop_set=100_001), "spec.stopping.stop_set"),
        (stopping(patience=1_001), "spec.stopping.patience"),
        (stopping(complete=True), "spec.stopping.complete"),
        ({"oracle": s.OracleSpec(name="dataset", other_class="z")}, "spec.oracle.other_class"),
        ({"oracle": s.OracleSpec(other_class="a")}, "spec.oracle.other_class"),
    ],
)
def test_what_is_wrong_is_refused_with_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_spec(make_spec(**changes), oracles=ORACLES)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "changes",
    [
        seeding(),
        seeding(s.SEEDING_KIND_RANDOM),
        seeding(EXAMPLES, item_ids=[str(n) for n in range(6)]),
        seeding(QUERIES, queries=["q"] * 100, encoder=ENCODER),
        seeding(STRATEGY),
        seeding(STRATEGY, strategy="k_center"),
        seeding(STRATEGY, strategy="auto"),
        {**seeding(CONCEPT, positives=6), "oracle": DATASET},
        evaluation(items=14),
        evaluation(items=5, test_pool=100_000, test_points=9),
        stopping(),
        stopping(kappa=0.99, overall_uncertainty=0.1, classification_change=0.01, complete=True),
        {**stopping(target_score=0.9, target_measure="macro_f1"), **evaluation(items=5)},
        {**stopping(target_score=0.9), **evaluation(test_pool=5, test_points=1)},
        {**stopping(target_score=0.9, target_measure="micro_f1"), "evaluation_pool": "held-out"},
        {"oracle": s.OracleSpec(name="dataset", other_class="a")},
    ],
)
def test_what_is_right_is_taken(changes: dict[str, Any]) -> None:
    check_spec(make_spec(**changes), oracles=ORACLES)


def test_defaults_are_those_of_the_contract() -> None:
    spec = make_spec(**stopping())
    assert (stop_set_of(spec.stopping), patience_of(spec.stopping), measure_of(spec.stopping)) == (1000, 3, "accuracy")
    assert seeding_of(spec) == s.SEEDING_KIND_RANDOM
    assert seeding_strategy_of(spec) == "typiclust"
    assert seeding_strategy_of(make_spec(**seeding(STRATEGY, strategy="coreset"))) == "k_center"


@pytest.mark.parametrize(
    ("batch", "told", "positives"), [(100, 0, 5), (6, 0, 1), (200, 0, 10), (100, 40, 40), (3, 5, 3)]
)
def test_a_concept_has_five_positives_of_a_hundred_unless_told(batch: int, told: int, positives: int) -> None:
    assert positives_of(make_spec(**seeding(CONCEPT, positives=told)), batch) == positives


def test_a_concept_is_the_second_class_unless_the_strategy_looks_for_the_first() -> None:
    assert positive_class_of(make_spec()) == 1
    assert positive_class_of(make_spec(strategy=c.StrategySpec(positive_class="a"))) == 0


def test_a_pool_must_have_room_for_what_is_held_out_and_the_first_batch() -> None:
    spec = make_spec(**evaluation(items=5, test_pool=9, test_points=2))
    check_pool_has_room(spec, 20)
    check_pool_has_room(make_spec(), 0)
    with pytest.raises(FailedPrecondition) as caught:
        check_pool_has_room(spec, 19)
    assert caught.value.field == "spec.evaluation"
