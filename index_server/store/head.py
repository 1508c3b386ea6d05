"""HEAD: a small file that names the version of a pool's items that counts."""

import json
from pathlib import Path

from sealpool.errors import FailedPrecondition


def head_bytes(version: int) -> bytes:
    """Return the content of HEAD for a version."""
    return json.dumps({"version": version}).encode()


def read_head(path: Path) -> int:
    """Return the version that HEAD names.

    Raises
    ------
    FailedPrecondition
        It cannot be read.
    """
    try:
        return int(json.loads(path.read_bytes())["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(f"{path.name} cannot be read: {error}") from error
