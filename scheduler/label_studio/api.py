"""What is read from Label Studio, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sealpool.errors import Unavailable

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """A project."""

    id: int
    description: str
    model_version: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TheirAnnotation:
    """An annotation as it is now. `version` is when it was last changed: later ones are greater as texts, too."""

    id: int
    version: str
    user_id: int
    was_skipped: bool
    result: Sequence[Json]


@dataclass(frozen=True, kw_only=True, slots=True)
class TheirTask:
    """A task, with its annotations. `item_id` is "" for one that somebody else put there: no item has such an id."""

    id: int
    item_id: str
    updated_at: str
    is_labelled: bool
    annotations: Sequence[TheirAnnotation]


def project_of(given: Json) -> Project:
    """Read a project."""
    return Project(
        id=int(given["id"]),
        description=str(given.get("description") or ""),
        model_version=str(given.get("model_version") or ""),
    )


def task_of(given: Json) -> TheirTask:
    """Read a task."""
    data = given.get("data")
    item = data.get("item_id") if isinstance(data, Mapping) else None
    return TheirTask(
        id=_id(given["id"]),
        item_id=item if isinstance(item, str) and _is_storable(item) else "",
        updated_at=version_of(given["updated_at"]),
        is_labelled=bool(given.get("is_labeled")),
        annotations=[annotation_of(one) for one in given.get("annotations") or ()],
    )


def annotation_of(given: Json) -> TheirAnnotation:
    """Read an annotation."""
    user = given.get("completed_by")
    return TheirAnnotation(
        id=_id(given["id"]),
        version=version_of(given["updated_at"]),
        user_id=_id(user["id"] if isinstance(user, Mapping) else user or 0),
        was_skipped=bool(given.get("was_cancelled")),
        result=[one for one in given.get("result") or () if isinstance(one, Mapping)],
    )


def _id(given: Any) -> int:
    number = int(given)
    if not 0 <= number < 1 << 31:
        raise ValueError("no number of a thing in Label Studio")
    return number


def _is_storable(text: str) -> bool:
    """Whether a database takes it: no NUL, and no half of a surrogate pair, either of which JSON can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def version_of(time: str) -> str:
    """Return a time in the one form that Label Studio's filters take; it leaves out zeros of a second itself."""
    return moment(datetime.fromisoformat(time))


def moment(time: datetime) -> str:
    """Return an aware time as `version_of` writes it."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def understood(read: Any, given: Any) -> Any:
    """Return what `read` makes of an answer; Unavailable where it is not what the API promises."""
    try:
        return read(given)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise Unavailable("Label Studio answers something else than its API promises") from error
