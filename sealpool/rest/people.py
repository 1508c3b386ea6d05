"""What people and oracles have said of a pool's items, up to some moment."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from sealpool.v1 import scheduler_pb2


class LabelSource(Protocol):
    """What is asked of the scheduler. `sealpool.client.SchedulerClient` is one; errors are sealpool.errors."""

    def get_campaign(self, name: str) -> scheduler_pb2.Campaign:
        """Return one campaign."""

    def list_labels(
        self,
        campaign: str,
        *,
        after_sequence: int = 0,
        only_effective: bool = False,
        purpose: scheduler_pb2.LabelPurpose.ValueType = scheduler_pb2.LABEL_PURPOSE_UNSPECIFIED,
    ) -> Iterator[scheduler_pb2.Label]:
        """Yield labels in the order they were committed."""

    def draw_audit(self, campaign: str, *, items: int) -> scheduler_pb2.DrawAuditResponse:
        """Ask people for labels of unlabelled items drawn at random, `items` in all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenLabels:
    """The effective labels as of `sequence`, by item.

    `training` is what models are trained on. `others` were given for evaluation in the pool itself, or for an audit.
    """

    training: Mapping[str, tuple[str, ...]]
    others: Mapping[str, tuple[str, ...]]
    sequence: int

    def of(self, item_id: str) -> tuple[str, ...] | None:
        """Return an item's classes; None where nobody labelled it."""
        found = self.training.get(item_id)
        return self.others.get(item_id) if found is None else found


def read_labels(source: LabelSource, spec: scheduler_pb2.CampaignSpec, *, until: int | None = None) -> GivenLabels:
    """Read the labels of a campaign's pool as they were at sequence `until`; None: as they are now.

    Labels of held-out items that lie in another pool are left aside.
    """
    purposes = [scheduler_pb2.LABEL_PURPOSE_TRAINING, scheduler_pb2.LABEL_PURPOSE_AUDIT]
    if not spec.evaluation_pool:
        purposes.insert(1, scheduler_pb2.LABEL_PURPOSE_EVALUATION)
    found: list[dict[str, tuple[str, ...]]] = []
    last = 0
    for purpose in purposes:
        latest: dict[str, tuple[str, ...]] = {}
        # With what was corrected since: what was effective at `until` may have been.
        for label in source.list_labels(spec.name, purpose=purpose):
            if until is None or label.sequence <= until:
                latest[label.item_id] = tuple(label.classes)
                last = max(last, label.sequence)
        found.append(latest)
    others = {item_id: classes for some in found[1:] for item_id, classes in some.items()}
    return GivenLabels(training=found[0], others=others, sequence=last if until is None else until)
