"""Stopping criteria of a campaign: every field checked, and the defaults."""

from sealpool.errors import InvalidArgument
from sealpool.v1 import scheduler_pb2 as s
from sealpool.vocabulary.checking import check_choice, check_range

MEASURES = ("accuracy", "macro_f1", "micro_f1", "macro_roc_auc", "mean_average_precision")
DEFAULT_MEASURE = "accuracy"
DEFAULT_STOP_SET = 1_000
DEFAULT_PATIENCE = 3
MAX_STOP_SET = 100_000
MAX_PATIENCE = 1_000


def measure_of(spec: s.StoppingSpec) -> str:
    """Return the field of Quality that the target is set for."""
    return spec.target_measure or DEFAULT_MEASURE


def patience_of(spec: s.StoppingSpec) -> int:
    """Return how many rounds in a row a criterion must be met."""
    return spec.patience or DEFAULT_PATIENCE


def stop_set_of(spec: s.StoppingSpec) -> int:
    """Return how many items the stop set is to have."""
    return spec.stop_set or DEFAULT_STOP_SET


def check_stopping(spec: s.CampaignSpec) -> None:
    """Check the stopping criteria of a campaign, if it has any.

    A StoppingSpec without a threshold is right: it asks for the surveys alone.

    Raises
    ------
    InvalidArgument
        With the field at fault.
    """
    if not spec.HasField("stopping"):
        return
    stopping = spec.stopping
    for field in ("target_score", "kappa", "overall_uncertainty", "classification_change"):
        check_range(f"spec.stopping.{field}", getattr(stopping, field), 0, 1)
    check_choice("spec.stopping.target_measure", stopping.target_measure, frozenset({"", *MEASURES}))
    _check_target(spec)
    if stopping.stop_set > MAX_STOP_SET:
        raise InvalidArgument("spec.stopping.stop_set", f"{stopping.stop_set:,} is over {MAX_STOP_SET:,}")
    if stopping.patience > MAX_PATIENCE:
        raise InvalidArgument("spec.stopping.patience", f"{stopping.patience:,} is over {MAX_PATIENCE:,}")
    if stopping.complete and not _has_criterion(stopping):
        raise InvalidArgument("spec.stopping.complete", "is given, and no criterion has a threshold")


def _check_target(spec: s.CampaignSpec) -> None:
    stopping = spec.stopping
    if not stopping.target_score:
        if stopping.target_measure:
            raise InvalidArgument("spec.stopping.target_measure", "is given without target_score")
        return
    if spec.evaluation_pool or spec.evaluation.items:
        return
    if not spec.evaluation.test_points:
        raise InvalidArgument(
            "spec.stopping.target_score",
            "needs held-out items: give evaluation_pool, evaluation.items or evaluation.test_points",
        )
    if measure_of(stopping) != DEFAULT_MEASURE:
        raise InvalidArgument(
            "spec.stopping.target_measure",
            f"{stopping.target_measure} needs evaluation_pool or evaluation.items: test points estimate accuracy alone",
        )


def _has_criterion(stopping: s.StoppingSpec) -> bool:
    return any((stopping.target_score, stopping.kappa, stopping.overall_uncertainty, stopping.classification_change))
