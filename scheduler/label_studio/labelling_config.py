"""The labelling form of a campaign, in Label Studio's XML."""

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from sealpool.v1 import common_pb2, scheduler_pb2

SHOWN = "item"
"""The name of what annotators look at."""
CHOICES = "label"
CANNOT_TELL = "cannot_tell"
COMMENT = "comment"
CANNOT_TELL_CHOICE = "Cannot tell"
TEXT = "text"
IMAGE = "image"
INPUTS = (TEXT, IMAGE)
_KEYS = 9
"""Choices that get a number key by themselves."""


def labelling_config(spec: scheduler_pb2.CampaignSpec, *, shown: str) -> str:
    """Return the form: what is shown, the classes, a way to say "cannot tell", and room for a comment.

    Parameters
    ----------
    shown
        "text" or "image": also the name of the field in a task's data.
    """
    view = ET.Element("View")
    ET.SubElement(view, "Text" if shown == TEXT else "Image", name=SHOWN, value=f"${shown}")
    several = spec.task == common_pb2.TASK_KIND_MULTILABEL
    _choices(view, CHOICES, spec.classes, choice="multiple" if several else "single", showInline="true")
    _choices(view, CANNOT_TELL, [CANNOT_TELL_CHOICE], choice="multiple", showInline="true")
    ET.SubElement(view, "TextArea", name=COMMENT, toName=SHOWN, maxSubmissions="1", rows="2", placeholder="Comment")
    return ET.tostring(view, encoding="unicode")


def _choices(view: ET.Element, name: str, values: Sequence[str], **attributes: str) -> None:
    # Without required="true" an empty form can be sent: of several labels none may hold.
    choices = ET.SubElement(view, "Choices", {"name": name, "toName": SHOWN, **attributes})
    for number, value in enumerate(values, start=1):
        key = {"hotkey": str(number)} if name == CHOICES and number <= _KEYS else {}
        ET.SubElement(choices, "Choice", {"value": value, **key})
