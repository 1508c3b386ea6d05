"""Tokens: who may call what, and the file they lie in.

A token is 32 random bytes, told to its owner once. The file keeps its SHA-256, from which it cannot be found again. A
slow, salted hash as for passwords is not needed: it makes guessing dear where secrets are short or reused, and 2^256
equally likely tokens cannot be guessed at any speed. A fast one lets a service check every call.
"""

import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

from sealpool.durable import sync_directory
from sealpool.errors import InvalidArgument

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SCOPE = re.compile(r"\*|[A-Za-z0-9][A-Za-z0-9._-]{0,127}\*?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TOKEN_BYTES = 32


class Role(IntEnum):
    """What a token allows; each role allows what those below it do."""

    READ = 1
    WRITE = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """The role's name in files and messages."""
        return self.name.lower()


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """What is known of a token. The token itself is not.

    Parameters
    ----------
    pools
        Names of the pools, and of aliases, that it is for; one that ends in * stands for all that begin so.
    sha256
        Of the token's text, in hexadecimal.
    expires_at
        When it ends to be one; None for never.
    """

    name: str
    role: Role
    pools: tuple[str, ...] = ("*",)
    sha256: str = field(repr=False)
    created: datetime
    expires_at: datetime | None = None

    @property
    def is_for_all_pools(self) -> bool:
        """Whether every pool is one of its own."""
        return "*" in self.pools

    def may_use(self, pool: str) -> bool:
        """Whether a pool is one of its own."""
        return any(pool.startswith(one[:-1]) if one.endswith("*") else pool == one for one in self.pools)


def digest(secret: str) -> str:
    """Return what a file keeps of a token."""
    return hashlib.sha256(secret.encode()).hexdigest()


def make_token(
    name: str, *, role: Role, pools: Sequence[str], created: datetime, expires_at: datetime | None = None
) -> tuple[str, Token]:
    """Draw a new token; return its text, which is kept nowhere, and what is known of it.

    Raises
    ------
    InvalidArgument
        The name is none, a pool is neither a name nor the beginning of one with a *, or it expires before it is made.
    """
    secret = secrets.token_urlsafe(_TOKEN_BYTES)
    if not _NAME.fullmatch(name):
        raise InvalidArgument("name", "1 to 128 characters of [A-Za-z0-9._-], a letter or a digit first")
    if expires_at is not None and expires_at <= created:
        raise InvalidArgument("expires_at", f"{expires_at.isoformat()} is not after now")
    return secret, Token(
        name=name, role=role, pools=_scopes(pools), sha256=digest(secret), created=created, expires_at=expires_at
    )


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Return the tokens of a file.

    Raises
    ------
    OSError
        The file cannot be read.
    InvalidArgument
        It is no file of tokens, or a name or a token is in it twice.
    """
    return parse_tokens(path.read_bytes())


def parse_tokens(content: bytes) -> tuple[Token, ...]:
    """Return the tokens of a file's content. Raises InvalidArgument, naming the entry at fault."""
    try:
        entries = json.loads(content)["tokens"]
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidArgument("tokens_file", 'not a JSON object with a list "tokens"') from error
    if not isinstance(entries, list):
        raise InvalidArgument("tokens_file", '"tokens" is not a list')
    tokens = tuple(_parse(entry, number) for number, entry in enumerate(entries, 1))
    for values in ([token.name for token in tokens], [token.sha256 for token in tokens]):
        if len(set(values)) < len(values):
            raise InvalidArgument("tokens_file", "a name or a sha256 is in it twice")
    return tokens


@contextmanager
def edited(path: Path) -> Iterator[Callable[[Sequence[Token]], None]]:
    """Give what replaces the file's tokens, durably and at once; nobody else edits it meanwhile."""
    directory = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield lambda tokens: _replace(path.absolute(), _format(tokens))
    finally:
        os.close(directory)


def _scopes(pools: Sequence[object]) -> tuple[str, ...]:
    names = tuple(one for one in pools if isinstance(one, str) and _SCOPE.fullmatch(one))
    for one in set(pools).difference(names):
        raise InvalidArgument("pools", f"{one!r} is neither a pool's name nor the beginning of one and a *")
    if not names:
        raise InvalidArgument("pools", 'none: "*" stands for all')
    return names


def _parse(entry: Any, number: int) -> Token:
    try:
        pools = entry.get("pools", ["*"])
        expires_at = entry.get("expires_at")
        token = Token(
            name=entry["name"],
            role=Role[entry["role"].upper()],
            pools=_scopes(pools if isinstance(pools, list) else [pools]),
            sha256=entry["sha256"].lower(),
            created=_time(entry["created"]),
            expires_at=None if expires_at is None else _time(expires_at),
        )
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise InvalidArgument("tokens_file", f"token {number}: {error!r}") from error
    except InvalidArgument as error:
        raise InvalidArgument("tokens_file", f"token {number}: {error.message}") from error
    if not _NAME.fullmatch(token.name) or not _DIGEST.fullmatch(token.sha256):
        raise InvalidArgument("tokens_file", f"token {number}: its name is none, or its sha256 is not 64 hex digits")
    return token


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} names no time zone")
    return moment


def _format(tokens: Sequence[Token]) -> bytes:
    entries = [
        {
            "name": token.name,
            "role": token.role.word,
            "pools": list(token.pools),
            "sha256": token.sha256,
            "created": token.created.isoformat(),
            "expires_at": None if token.expires_at is None else token.expires_at.isoformat(),
        }
        for token in tokens
    ]
    return (json.dumps({"tokens": entries}, indent=2) + "\n").encode()


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)  # of an editor that was killed: the directory is locked
    before = path.stat() if path.exists() else None
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        if before is not None:
            # A service that can no longer read the file keeps the tokens it had, a revoked one among them.
            if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
            os.fchmod(file.fileno(), before.st_mode & 0o777)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)
