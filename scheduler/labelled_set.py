"""The labels that a model may learn from."""

from sqlalchemy.orm import Session

from scheduler.domain.evaluation_spec import holds_out
from scheduler.domain.origin import is_made
from scheduler.domain.states import LabelPurpose
from scheduler.storage import drawn_items, labels
from sealpool.types import ItemId
from sealpool.v1 import scheduler_pb2

LabelledSet = dict[ItemId, tuple[int, ...]]
"""Class indices of each item, in the order in which those labels were committed."""


def labelled_set(session: Session, campaign_id: int, spec: scheduler_pb2.CampaignSpec, *, until: int) -> LabelledSet:
    """Return the labels for training as of sequence `until`.

    Held-out items are not among them: one may have been labelled for training unasked.
    """
    found = labels.effective(session, campaign_id, purpose=LabelPurpose.TRAINING, until=until)
    for item in drawn_items.held_out(session, campaign_id) if holds_out(spec) else ():
        found.pop(item, None)
    return found


def training_set(session: Session, campaign_id: int, spec: scheduler_pb2.CampaignSpec, *, until: int) -> LabelledSet:
    """Return the labelled set, without made items where the campaign trains on none."""
    found = labelled_set(session, campaign_id, spec, until=until)
    if not spec.exclude_synthetic:
        return found
    return {item: classes for item, classes in found.items() if not is_made(item)}
