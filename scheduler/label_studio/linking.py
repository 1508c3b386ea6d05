"""A campaign's project in Label Studio: found again, or made."""

import hashlib

from scheduler.label_studio.client import LabelStudioClient
from scheduler.label_studio.labelling_config import labelling_config
from scheduler.storage import campaigns
from scheduler.storage.models import Campaign
from sealpool.v1 import scheduler_pb2

SECRET_HEADER = "X-Sealpool-Secret"  # noqa: S105 - the header's name
_TITLE_CHARACTERS = 50
_MOST_WANTED_IS_SURE = ("most_likely_positive",)
"""Strategies whose picks are not those that the model doubts."""


def find_or_make_project(client: LabelStudioClient, campaign: Campaign, *, shown: str) -> tuple[int, bool]:
    """Return the number of the campaign's project, and whether it was there before.

    The description carries a mark by which a project is found again that was made just before we were killed.
    """
    marker = marker_of(campaign, shown=shown)
    found = client.find_project(marker)
    if found is not None:
        return found.id, True
    spec = campaigns.spec_of(campaign)
    made = client.create_project(
        {
            "title": f"sealpool {spec.name}"[:_TITLE_CHARACTERS],
            "description": f"Campaign {spec.name} of sealpool, which fills and empties this project. {marker}",
            "label_config": labelling_config(spec, shown=shown),
            "sampling": sampling_of(spec),
            "show_skip_button": True,
            "skip_queue": "REQUEUE_FOR_OTHERS",
            "enable_empty_annotation": True,
            "show_collab_predictions": True,
            "maximum_annotations": max(1, spec.annotation.annotations),
        }
    )
    return made.id, False


def marker_of(campaign: Campaign, *, shown: str) -> str:
    """Return what tells this campaign's project from all others, those of other schedulers too."""
    identity = f"{campaign.name}\0{campaign.created_at.isoformat()}\0{shown}"
    return f"[sealpool:{hashlib.sha256(identity.encode()).hexdigest()[:20]}]"


def sampling_of(spec: scheduler_pb2.CampaignSpec) -> str:
    """Return the order in which Label Studio hands tasks out.

    "Uncertainty sampling" takes what the model is least sure of, which is what almost every strategy picks first;
    where the wanted ones are those it is sure of, the order in which they were pushed is right.
    """
    return "Sequential sampling" if spec.strategy.name in _MOST_WANTED_IS_SURE else "Uncertainty sampling"


def set_webhook(client: LabelStudioClient, project_id: int, name: str, url: str, secret: str) -> int | None:
    """Have Label Studio call us, where `url` says how it reaches us; return the webhook's number."""
    if not url:
        return None
    return client.set_webhook(project_id, f"{url.rstrip('/')}/label-studio/{name}/webhook", {SECRET_HEADER: secret})
