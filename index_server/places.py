"""Which places on disk and in object stores callers may name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from sealpool.errors import InvalidArgument
from sealpool.validation import MAX_URI_BYTES

_MAX_PART_BYTES: Final = 255
"""Of a path on Linux."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Below which places callers may write snapshots, and open data sets of others."""

    snapshot_roots: Sequence[str]
    source_roots: Sequence[str]


def allowed_place(uri: str, roots: Sequence[str], *, field: str, setting: str) -> str:
    """Return the place that `uri` names if it is below one of `roots`; a relative path is below the first.

    Parameters
    ----------
    roots
        Directories, or URLs of object stores.

    Raises
    ------
    InvalidArgument
        It is not below one of them, or there is none; or it can be no place.
    """
    _check_form(uri, field)
    if not roots:
        raise InvalidArgument(field, f"no place is allowed: {setting} is empty")
    if "://" in uri:
        place = uri.removeprefix("file://") if uri.startswith("file:///") else uri
    else:
        place = uri if Path(uri).is_absolute() or "://" in roots[0] else str(Path(roots[0]) / uri)
    if any(_is_below(place, root) for root in roots):
        return place
    raise InvalidArgument(field, f"{uri[:200]!r} is not below one of {setting}: {', '.join(roots)}")


def _check_form(uri: str, field: str) -> None:
    if not uri:
        raise InvalidArgument(field, "is missing")
    content = uri.encode()
    if "\0" in uri:
        raise InvalidArgument(field, "holds a zero byte")
    if len(content) > MAX_URI_BYTES or max(map(len, content.split(b"/"))) > _MAX_PART_BYTES:
        raise InvalidArgument(field, f"is over {MAX_URI_BYTES:,} bytes, or a part of it over {_MAX_PART_BYTES}")


def _is_below(place: str, root: str) -> bool:
    if "://" in root:
        # Object stores know no "..", but what lies between may take it for one.
        plain = unquote(place.partition("?")[0])
        return plain.startswith(root.rstrip("/") + "/") and ".." not in plain.split("/")
    below, above = Path(place).resolve(), Path(root).resolve()
    return "://" not in place and below != above and below.is_relative_to(above)
