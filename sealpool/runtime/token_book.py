"""The tokens that a service knows, as its file has them now."""

import hmac
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from sealpool.errors import InvalidArgument
from sealpool.runtime.logs import Logger
from sealpool.runtime.tokens import Token, digest, read_tokens

_LOOK_EVERY_S = 1.0


class TokenBook:
    """Tokens by their text. Safe to share between threads.

    The file is looked at once a second at most, and read again where it is another. One that cannot be read or is
    wrong leaves the tokens as they were, which the log says once.

    Parameters
    ----------
    monotonic, now
        Seconds of a clock that never goes back, and the time of day with its zone.

    Raises
    ------
    OSError, InvalidArgument
        The file cannot be read, or is none of tokens.
    """

    def __init__(self, path: Path, *, log: Logger, monotonic: Callable[[], float], now: Callable[[], datetime]) -> None:
        self._path = path
        self._log = log
        self._monotonic = monotonic
        self._now = now
        self._looking = threading.Lock()
        self._look_at = monotonic() + _LOOK_EVERY_S
        self._seen = self._identity()
        self._by_digest = {token.sha256: token for token in read_tokens(path)}

    def find(self, secret: str) -> Token | None:
        """Return what is known of a token, or None if nothing is or it has expired."""
        if self._monotonic() >= self._look_at:
            self._look()
        # The dictionary is asked for a hash: how long it takes says nothing of the token that was sent.
        presented = digest(secret)
        token = self._by_digest.get(presented)
        if token is None or not hmac.compare_digest(token.sha256, presented):
            return None
        return token if token.expires_at is None or self._now() < token.expires_at else None

    def _look(self) -> None:
        if not self._looking.acquire(blocking=False):
            return  # another call looks
        try:
            self._look_at = self._monotonic() + _LOOK_EVERY_S
            seen = self._identity()
            if seen != self._seen:
                self._seen = seen
                self._by_digest = {token.sha256: token for token in read_tokens(self._path)}
                self._log.info("tokens read again", tokens=len(self._by_digest))
        except (OSError, InvalidArgument) as error:
            self._log.error("tokens not read: those of before are kept", path=str(self._path), error=str(error))
        finally:
            self._looking.release()

    def _identity(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size
