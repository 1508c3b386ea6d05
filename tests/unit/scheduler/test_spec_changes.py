"""Which parts of a campaign's spec may change while it runs."""

from typing import Any

import pytest

from scheduler.domain.spec_changes import MUTABLE, changes
from sealpool.errors import InvalidArgument
from sealpool.v1 import common_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.world import make_spec

LLM = pb.LlmSpec(model="m", definitions=[pb.ClassDefinition(name="a", definition="x")])


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ({}, {}, []),
        ({}, {"rule": pb.RoundRule(), "policy": common_pb2.PolicySpec()}, []),
        ({}, {"budget": 30, "batch_size": 6}, ["batch_size", "budget"]),
        ({}, {"batch_size": 0, "batch_share": 0.1}, ["batch_size", "batch_share"]),
        ({}, {"exploration": 0.1, "fill": pb.FILL_NONE, "lease_seconds": 9}, ["exploration", "fill", "lease_seconds"]),
        ({}, {"rule": pb.RoundRule(after_labels=3, open_rounds=1)}, ["rule.after_labels", "rule.open_rounds"]),
        ({}, {"stopping": pb.StoppingSpec()}, ["stopping"]),
        (
            {"stopping": pb.StoppingSpec()},
            {"stopping": pb.StoppingSpec(kappa=0.9, complete=True)},
            ["stopping.kappa", "stopping.complete"],
        ),
        ({}, {"annotation": pb.AnnotationSpec(give_up_after=3)}, ["annotation.give_up_after"]),
        (
            {"oracle": pb.OracleSpec(name="llm", llm=LLM)},
            {"oracle": pb.OracleSpec(name="llm", llm=pb.LlmSpec(model="n", examples=0, max_cost=3))},
            ["oracle.llm.model", "oracle.llm.definitions", "oracle.llm.examples", "oracle.llm.max_cost"],
        ),
        (
            {"stream": pb.StreamSpec(step=0.1)},
            {"stream": pb.StreamSpec(step=0.2, horizon=9)},
            ["stream.step", "stream.horizon"],
        ),
        ({}, {"evaluation": pb.EvaluationSpec(test_points=5)}, ["evaluation.test_points"]),
    ],
)
def test_what_may_change_is_told_by_its_path(before: dict[str, Any], after: dict[str, Any], changed: list[str]) -> None:
    assert changes(make_spec(**before), make_spec(**after)) == changed


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "d"}, "name"),
        ({"classes": ["b", "a"]}, "classes"),
        ({"model": common_pb2.ModelSpec(name="mlp")}, "model.name"),
        ({"strategy": common_pb2.StrategySpec(name="bald")}, "strategy.name"),
        ({"policy": common_pb2.PolicySpec(k=7)}, "policy.k"),
        ({"expand_from_classes": ["a"]}, "expand_from_classes"),
        ({"seed": 7}, "seed"),
        ({"seed_size": 7}, "seed_size"),
        ({"oracle": pb.OracleSpec(name="dataset")}, "oracle.name"),
        ({"evaluation_pool": "held-out"}, "evaluation_pool"),
        ({"seeding": pb.SeedingSpec(kind=pb.SEEDING_KIND_STRATEGY)}, "seeding.kind"),
        ({"annotation": pb.AnnotationSpec(annotations=3)}, "annotation.annotations"),
        ({"evaluation": pb.EvaluationSpec(items=3)}, "evaluation.items"),
        ({"stream": pb.StreamSpec()}, "stream"),
    ],
)
def test_what_may_not_change_is_refused_by_name(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument, match="cannot change") as caught:
        changes(make_spec(), make_spec(**{**change, "budget": 99}))
    assert caught.value.field == f"spec.{field}"


def test_every_mutable_path_is_one_of_the_contract() -> None:
    for path in MUTABLE:
        parts = path.split(".")
        message = pb.CampaignSpec.DESCRIPTOR
        for name in parts[:-1]:
            message = message.fields_by_name[name].message_type
        assert parts[-1] in message.fields_by_name
