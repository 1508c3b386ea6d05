"""Checks of callers' short texts."""

from sealpool.errors import InvalidArgument


def check_text(field: str, value: str, *, max_bytes: int, min_bytes: int = 0) -> str:
    """Return `value` if it is that long and holds no NUL, which PostgreSQL cannot keep; InvalidArgument otherwise."""
    if not min_bytes <= len(value.encode()) <= max_bytes:
        raise InvalidArgument(field, f"has {len(value.encode()):,} bytes, not {min_bytes} to {max_bytes}")
    if "\0" in value:
        raise InvalidArgument(field, "holds a NUL character")
    return value


def check_annotator(annotator: str) -> str:
    """Return the name of an annotator, 1 to 128 bytes, or raise InvalidArgument."""
    return check_text("annotator", annotator, min_bytes=1, max_bytes=128)
