"""What a report is made of, read from the services; what cannot be had is left out, and why is said."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sealpool.errors import SealpoolError
from sealpool.types import Items
from sealpool.v1 import scheduler_pb2

RECENT = 12
_EXCERPT = 180


class Scheduler(Protocol):
    """What is asked of the scheduler. `sealpool.client.SchedulerClient` is one; errors are sealpool.errors."""

    def get_campaign(self, name: str) -> scheduler_pb2.Campaign:
        """Return one campaign."""

    def list_rounds(self, campaign: str) -> list[scheduler_pb2.Round]:
        """Return its rounds."""

    def list_labels(self, campaign: str) -> Iterator[scheduler_pb2.Label]:
        """Yield its training labels, corrected ones too, in the order they were committed."""

    def list_annotations(self, campaign: str) -> Iterator[scheduler_pb2.Annotation]:
        """Yield what annotators said."""

    def get_oracle_report(self, campaign: str) -> scheduler_pb2.GetOracleReportResponse:
        """Return who labelled how much."""


class Index(Protocol):
    """What is asked of the index server. `sealpool.client.IndexClient` is one; errors are sealpool.errors."""

    def get_items(
        self,
        pool: str,
        ids: Sequence[str],
        *,
        vectors: bool = True,
        payloads: bool = False,
        allow_missing: bool = False,
    ) -> Items:
        """Return items in the order of `ids`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pick:
    """An item that was picked and labelled. `text` is its beginning, "" where that is not known."""

    item_id: str
    round: int
    classes: Sequence[str]
    annotator: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What became of labels, by number."""

    labels: int
    corrections: int
    unsolicited: int
    skips: int
    cannot_tell: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """Everything that a report shows. `missing` says what could not be had, and why."""

    campaign: scheduler_pb2.Campaign
    rounds: Sequence[scheduler_pb2.Round]
    history: History
    picks: Sequence[Pick]
    oracles: scheduler_pb2.GetOracleReportResponse | None
    missing: Sequence[str]


def read_material(name: str, scheduler: Scheduler, index: Index) -> Material:
    """Read what a report shows.

    Raises
    ------
    SealpoolError
        The campaign, its rounds or its labels cannot be had. What else is missing is only said.
    """
    campaign = scheduler.get_campaign(name)
    counts: Counter[str] = Counter()
    recent: list[scheduler_pb2.Label] = []
    for label in scheduler.list_labels(name):
        counts["labels"] += not label.corrects
        counts["corrections"] += label.corrects
        counts["unsolicited"] += label.unsolicited
        recent = [*recent, label][-RECENT:] if not label.unsolicited else recent
    missing: list[str] = []
    said = _outcomes(name, scheduler, missing)
    try:
        oracles = scheduler.get_oracle_report(name)
    except SealpoolError as error:
        oracles = None
        missing.append(f"Who labelled how much is not known: {error.message}.")
    return Material(
        campaign=campaign,
        rounds=scheduler.list_rounds(name),
        history=History(
            labels=counts["labels"],
            corrections=counts["corrections"],
            unsolicited=counts["unsolicited"],
            skips=said[scheduler_pb2.ANNOTATION_OUTCOME_SKIP],
            cannot_tell=said[scheduler_pb2.ANNOTATION_OUTCOME_CANNOT_TELL],
        ),
        picks=_picks(campaign, recent[::-1], index, missing),
        oracles=oracles,
        missing=missing,
    )


def _outcomes(name: str, scheduler: Scheduler, missing: list[str]) -> Counter[int]:
    try:
        return Counter(annotation.outcome for annotation in scheduler.list_annotations(name))
    except SealpoolError as error:
        missing.append(f"Skips and “cannot tell” are not known: {error.message}.")
        return Counter()


def _picks(
    campaign: scheduler_pb2.Campaign, labels: Sequence[scheduler_pb2.Label], index: Index, missing: list[str]
) -> list[Pick]:
    ids = list(dict.fromkeys(label.item_id for label in labels))
    texts: dict[str, str] = {}
    try:
        items = index.get_items(campaign.spec.pool, ids, vectors=False, payloads=True, allow_missing=True)
        texts = {
            item_id: payload.text or payload.uri
            for item_id, payload in zip(items.ids, items.payloads or (), strict=True)
        }
    except SealpoolError as error:
        missing.append(f"The items’ texts are not shown: {error.message}.")
    return [
        Pick(
            item_id=label.item_id,
            round=label.round,
            classes=list(label.classes),
            annotator=label.annotator,
            text=_shorten(texts.get(label.item_id, "")),
        )
        for label in labels
    ]


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _EXCERPT else text[:_EXCERPT].rstrip() + "…"
