"""The part of a campaign's spec that says which items of a stream are asked about."""

from sealpool.errors import InvalidArgument
from sealpool.v1 import scheduler_pb2 as s
from sealpool.vocabulary.checking import check_enum, check_options, check_range, check_share

DEFAULT_UNCERTAINTY = 0.3
DEFAULT_STEP = 0.01
DEFAULT_BUDGET_SHARE = 0.1

_OPTIONS = {
    s.STREAM_THRESHOLD_FIXED: frozenset({"budget_share"}),
    s.STREAM_THRESHOLD_VARIABLE: frozenset({"budget_share", "step"}),
    s.STREAM_THRESHOLD_BUDGETED: frozenset({"horizon", "step"}),
}


def threshold_of(spec: s.StreamSpec) -> s.StreamThreshold.ValueType:
    """Return which threshold the stream has."""
    return spec.threshold or s.STREAM_THRESHOLD_VARIABLE


def check_stream(spec: s.CampaignSpec) -> None:
    """Check the stream of a campaign, where it has one.

    Raises
    ------
    InvalidArgument
        With the field at fault, for example "spec.stream.horizon".
    """
    if not spec.HasField("stream"):
        return
    stream = spec.stream
    check_enum("spec.stream.threshold", stream.threshold, values=s.StreamThreshold.values())
    kind = threshold_of(stream)
    told = {option for option in ("budget_share", "step", "horizon") if getattr(stream, option)}
    name = s.StreamThreshold.Name(kind).removeprefix("STREAM_THRESHOLD_").lower()
    check_options("spec.stream", f"the {name} threshold", told, _OPTIONS[kind])
    check_range("spec.stream.uncertainty", stream.uncertainty, 0, 1)
    check_range("spec.stream.step", stream.step, 0, 1)
    check_range("spec.stream.budget_share", stream.budget_share, 0, 1)
    check_share("spec.stream.random_share", stream.random_share)
    if kind == s.STREAM_THRESHOLD_BUDGETED and not stream.horizon:
        raise InvalidArgument("spec.stream.horizon", "is needed: over how many items is the budget to last?")
    if stream.HasField("encoder") and not stream.encoder.encoder:
        raise InvalidArgument("spec.stream.encoder.encoder", "is empty: which encoder embeds the texts?")
