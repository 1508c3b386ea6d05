"""What a model's answer says: JSON, checked strictly."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.domain.labels import ClassIndex
from sealpool.errors import InvalidArgument
from sealpool.v1 import scheduler_pb2

MAX_SCHEMA_CLASSES = 500
"""Endpoints bound the values of an enumeration; OpenAI's bound of 1,000 is the least that is documented."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """A valid answer. `classes` are indices, ascending; without meaning where the model cannot tell."""

    classes: tuple[int, ...]
    confidence: float
    cannot_tell: bool


class Malformed(ValueError):
    """An answer that breaks the rules; the message is meant for the model that gave it."""


def answer_schema(classes: Sequence[str]) -> dict[str, object]:
    """Return the JSON schema of an answer, in the subset that strict endpoints take."""
    return {
        "type": "object",
        "properties": {
            "classes": {"type": "array", "items": {"type": "string", "enum": list(classes)}},
            "confidence": {"type": "number"},
            "cannot_tell": {"type": "boolean"},
        },
        "required": ["classes", "confidence", "cannot_tell"],
        "additionalProperties": False,
    }


def read_answer(spec: scheduler_pb2.CampaignSpec, text: str) -> Said:
    """Return what an answer says, or raise Malformed.

    Words around the JSON object are passed over, since models that cannot be held to JSON add them. An object with
    other fields beside ours is taken.
    """
    told = _object(text)
    missing = [field for field in ("classes", "confidence", "cannot_tell") if field not in told]
    if missing:
        raise Malformed(f"the field {missing[0]!r} is missing")
    classes, confidence, cannot_tell = told["classes"], told["confidence"], told["cannot_tell"]
    if not isinstance(cannot_tell, bool):
        raise Malformed("'cannot_tell' is neither true nor false")
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 <= confidence <= 1:
        raise Malformed("'confidence' is not a number from 0 to 1")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise Malformed("'classes' is not a list of names")
    if cannot_tell:
        return Said(classes=(), confidence=float(confidence), cannot_tell=True)
    try:
        indices = ClassIndex(spec).indices("classes", classes)
    except InvalidArgument as error:
        raise Malformed(error.message) from error
    return Said(classes=indices, confidence=float(confidence), cannot_tell=False)


def _object(text: str) -> dict[str, object]:
    start = text.find("{")
    if start < 0:
        raise Malformed("there is no JSON object in the answer")
    try:
        # JSON's grammar has no NaN; Python's reader takes it unless told otherwise.
        told, _ = json.JSONDecoder(parse_constant=_refuse).raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise Malformed("the answer is not valid JSON, or was cut off") from error
    found: dict[str, object] = told
    return found


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")
