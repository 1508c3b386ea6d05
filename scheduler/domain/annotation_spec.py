"""How many people see an item: the campaign's choice, checked, and its defaults."""

from scheduler.domain.states import LabelPurpose
from sealpool.errors import InvalidArgument
from sealpool.v1 import common_pb2, scheduler_pb2
from sealpool.vocabulary.checking import check_enum, check_range

MAX_ANNOTATIONS = 25
MAX_MAX_ANNOTATIONS = 50
MAX_GIVE_UP_AFTER = 50
MORE_BY_DEFAULT = 2
DEFAULT_GIVE_UP_AFTER = 2
OWN_ORACLES = frozenset({"dataset", "llm"})


def check_annotation(spec: scheduler_pb2.CampaignSpec) -> None:
    """Check the annotation part of a spec, or raise InvalidArgument with the field at fault."""
    annotation = spec.annotation
    check_enum("spec.annotation.agreement", annotation.agreement, values=scheduler_pb2.Agreement.values())
    if annotation.annotations:
        check_range("spec.annotation.annotations", annotation.annotations, 1, MAX_ANNOTATIONS)
    if annotation.max_annotations:
        check_range(
            "spec.annotation.max_annotations", annotation.max_annotations, annotations_of(spec), MAX_MAX_ANNOTATIONS
        )
    if annotation.give_up_after:
        check_range("spec.annotation.give_up_after", annotation.give_up_after, 1, MAX_GIVE_UP_AFTER)
    if annotation.agreement == scheduler_pb2.AGREEMENT_DAWID_SKENE and spec.task == common_pb2.TASK_KIND_MULTILABEL:
        raise InvalidArgument("spec.annotation.agreement", "Dawid-Skene weighs answers of one class an item")
    if annotations_of(spec) > 1 and spec.oracle.name in OWN_ORACLES:
        raise InvalidArgument(
            "spec.annotation.annotations",
            f"is {annotations_of(spec)} beside oracle {spec.oracle.name!r}, which answers an item once",
        )


def annotations_of(spec: scheduler_pb2.CampaignSpec) -> int:
    """Return how many annotations are wanted of an item."""
    return spec.annotation.annotations or 1


def max_annotations_of(spec: scheduler_pb2.CampaignSpec) -> int:
    """Return after how many annotations an item without agreement is given up."""
    return spec.annotation.max_annotations or annotations_of(spec) + MORE_BY_DEFAULT


def give_up_after_of(spec: scheduler_pb2.CampaignSpec) -> int:
    """Return after how many "cannot tell" an item is given up."""
    return spec.annotation.give_up_after or DEFAULT_GIVE_UP_AFTER


def wanted_for(spec: scheduler_pb2.CampaignSpec, purpose: LabelPurpose) -> int:
    """Return how many annotations make a label for `purpose`.

    Items of an evaluation pool have no tasks: whoever hands in their labels knows them.
    """
    if purpose is LabelPurpose.EVALUATION and spec.evaluation_pool:
        return 1
    return annotations_of(spec)
