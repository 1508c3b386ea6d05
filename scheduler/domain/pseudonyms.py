"""What stands where a person's name or an item's id was erased."""

import re
import secrets
from typing import Final

_FORM: Final = re.compile(r"erased:[0-9a-f]{16}")


def make_pseudonym() -> str:
    """Return a name that nobody has and nothing leads back from."""
    return f"erased:{secrets.token_hex(8)}"


def is_pseudonym(name: str) -> bool:
    """Whether somebody or something was erased that had another name."""
    return _FORM.fullmatch(name) is not None
