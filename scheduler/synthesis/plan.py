"""A request to make items, checked, and what the campaign has to make them from."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from scheduler.domain.llm_spec import endpoint_of
from scheduler.domain.origin import is_made
from scheduler.domain.spec import oracle_of
from scheduler.labelled_set import labelled_set
from scheduler.rounds.beginning import require_active
from scheduler.storage import campaigns, streams, synthetic
from scheduler.storage.models import Campaign
from scheduler.streams.budget import left_of_budget
from scheduler.streams.judging import reads_text
from sealpool.errors import FailedPrecondition, InvalidArgument
from sealpool.types import ItemId
from sealpool.v1 import learner_pb2, scheduler_pb2, stream_pb2
from sealpool.vocabulary.checking import check_choice

_OPTIONS: Mapping[stream_pb2.SynthesisMethod.ValueType, frozenset[str]] = {
    stream_pb2.SYNTHESIS_METHOD_INTERPOLATE: frozenset(),
    stream_pb2.SYNTHESIS_METHOD_BOUNDARY: frozenset(),
    stream_pb2.SYNTHESIS_METHOD_AUGMENT: frozenset({"keep_label", "encoder"}),
    stream_pb2.SYNTHESIS_METHOD_PARAPHRASE: frozenset({"keep_label", "encoder", "endpoint", "model"}),
}
TEXT_METHODS = frozenset({stream_pb2.SYNTHESIS_METHOD_AUGMENT, stream_pb2.SYNTHESIS_METHOD_PARAPHRASE})


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to be made, and from what."""

    campaign_id: int
    spec: scheduler_pb2.CampaignSpec
    method: stream_pb2.SynthesisMethod.ValueType
    count: int  # within the budget
    sources: Mapping[ItemId, tuple[int, ...]]  # labelled real items, with their classes
    taken: Sequence[ItemId]  # items that nobody may be asked about again
    seed: int
    keep_label: bool
    encoder: learner_pb2.EmbedHeader
    endpoint: str
    model: str

    @property
    def method_name(self) -> str:
        """The method as it is written in metadata."""
        return stream_pb2.SynthesisMethod.Name(self.method).removeprefix("SYNTHESIS_METHOD_").lower()

    def some_sources(self, most: int) -> list[ItemId]:
        """Return `most` sources at most, drawn at random, of each label as many as of any other while they last."""
        if len(self.sources) <= most:
            return list(self.sources)
        items = list(self.sources)
        drawn: Counter[tuple[int, ...]] = Counter()
        turns: list[tuple[int, int]] = []
        for row in self.randomness().permutation(len(items)).tolist():
            label = self.sources[items[row]]
            turns.append((drawn[label], row))
            drawn[label] += 1
        return [items[row] for _, row in sorted(turns)[:most]]

    def randomness(self) -> np.random.Generator:
        """Return a generator for this request: the same until something was made."""
        return np.random.default_rng(self.seed)


def check_request(request: stream_pb2.SynthesizeRequest, *, max_count: int) -> None:
    """Check what can be told from a request alone; InvalidArgument."""
    if request.method not in _OPTIONS:
        raise InvalidArgument("method", "is not INTERPOLATE, BOUNDARY, AUGMENT or PARAPHRASE")
    if not 1 <= request.count <= max_count:
        raise InvalidArgument("count", f"{request.count:,} is not 1 to {max_count:,} (setting max_lease_tasks)")
    told = {name for name in ("keep_label", "endpoint", "model") if getattr(request, name)}
    told |= {"encoder"} if request.HasField("encoder") else set()
    name = stream_pb2.SynthesisMethod.Name(request.method)
    has = _OPTIONS[request.method]
    for option in sorted(told - has):
        raise InvalidArgument(option, f"{name} has no such option; it has {', '.join(sorted(has)) or 'none'}")


def make_plan(session: Session, campaign: Campaign, request: stream_pb2.SynthesizeRequest) -> Plan:
    """Look at the campaign, which nobody need lock.

    Raises
    ------
    InvalidArgument
        Classes that are not the campaign's.
    FailedPrecondition
        It is not active, has nothing left of its budget, or lacks what the method needs.
    """
    spec = campaigns.spec_of(campaign)
    require_active(campaign)
    wanted = _classes(spec, request.classes)
    left = require_budget(session, campaign)
    labelled = labelled_set(session, campaign.id, spec, until=campaign.last_sequence)
    sources = {
        item: classes
        for item, classes in labelled.items()
        if not is_made(item) and (not wanted or not wanted.isdisjoint(classes))
    }
    if not sources:
        raise FailedPrecondition("no labelled item to make others from: label some first", field="campaign")
    _check_labels_of_made(spec, request)
    return Plan(
        campaign_id=campaign.id,
        spec=spec,
        method=request.method,
        count=min(request.count, left),
        sources=sources,
        taken=streams.all_taken(session, campaign.id),
        seed=_seed(spec.seed, request.method, synthetic.count(session, campaign.id)),
        keep_label=request.keep_label,
        encoder=_encoder(spec, request),
        endpoint=request.endpoint or endpoint_of(spec.oracle.llm),
        model=_model(spec, request),
    )


def require_budget(session: Session, campaign: Campaign) -> int:
    """Return what is left of the budget, 1 or more, or raise FailedPrecondition."""
    left = left_of_budget(session, campaign)
    if not left:
        raise FailedPrecondition(
            f"nothing is left of the budget of campaign {campaign.name!r}: it is labelled, or handed out",
            field="campaign",
        )
    return left


def _classes(spec: scheduler_pb2.CampaignSpec, names: Sequence[str]) -> frozenset[int]:
    known = list(spec.classes)
    for name in names:
        check_choice("classes", name, frozenset(known))
    return frozenset(known.index(name) for name in names)


def _check_labels_of_made(spec: scheduler_pb2.CampaignSpec, request: stream_pb2.SynthesizeRequest) -> None:
    if request.method not in TEXT_METHODS:
        if reads_text(spec) and request.method == stream_pb2.SYNTHESIS_METHOD_BOUNDARY:
            raise FailedPrecondition("BOUNDARY judges points, and the campaign's model reads texts", field="method")
        return
    if request.keep_label and spec.annotation.annotations > 1:
        raise FailedPrecondition(
            "the campaign wants several annotations of an item; a label taken over would be one: ask about the items",
            field="keep_label",
        )
    if not request.keep_label and oracle_of(spec) == "dataset":
        raise FailedPrecondition(
            "the campaign's data set knows no label of a made item: keep_label", field="keep_label"
        )


def _encoder(spec: scheduler_pb2.CampaignSpec, request: stream_pb2.SynthesizeRequest) -> learner_pb2.EmbedHeader:
    encoder = request.encoder if request.HasField("encoder") else spec.stream.encoder
    if request.method in TEXT_METHODS and not encoder.encoder:
        raise FailedPrecondition(
            "made texts have to be embedded: name the encoder that the pool was embedded with, here or in spec.stream",
            field="encoder",
        )
    return encoder


def _model(spec: scheduler_pb2.CampaignSpec, request: stream_pb2.SynthesizeRequest) -> str:
    model = request.model or spec.oracle.llm.model
    if request.method == stream_pb2.SYNTHESIS_METHOD_PARAPHRASE and not model:
        raise FailedPrecondition("PARAPHRASE needs a language model: the campaign has none, so name one", field="model")
    return model


def _seed(campaign_seed: int, method: int, made: int) -> int:
    digest = hashlib.sha256(f"sealpool:{campaign_seed}:synthesis:{method}:{made}".encode()).digest()
    return int.from_bytes(digest[:8], "big")
