"""How fast an endpoint is asked."""

import threading
from collections.abc import Callable


class Pacer:
    """Spreads requests evenly, so that no minute has more of them, or of their tokens, than is allowed.

    A request holds back the next one for as long as its share of the minute. So any minute has at most
    `requests_per_minute` requests, and `tokens_per_minute` tokens beside those of one request.

    Parameters
    ----------
    requests_per_minute, tokens_per_minute
        0: no such limit.
    now
        Seconds of a clock that never goes back.
    """

    def __init__(self, *, requests_per_minute: float, tokens_per_minute: float, now: Callable[[], float]) -> None:
        self._request_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token_s = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._now = now
        self._lock = threading.Lock()
        self._next_request = self._next_tokens = self._held_until = float("-inf")

    def turn_in(self, tokens: int) -> float:
        """Take the next turn for a request of about so many tokens; return the seconds until it comes."""
        with self._lock:
            now = self._now()
            turn = max(now, self._next_request, self._next_tokens, self._held_until)
            self._next_request = turn + self._request_s
            self._next_tokens = turn + tokens * self._token_s
            return turn - now

    def settle(self, *, estimated: int, used: int) -> None:
        """Say how many tokens a request took in the end."""
        with self._lock:
            self._next_tokens += (used - estimated) * self._token_s

    def hold(self, seconds: float) -> None:
        """Give no turn for so long: the endpoint asked for that."""
        with self._lock:
            self._held_until = max(self._held_until, self._now() + seconds)

    def held_for(self) -> float:
        """Return for how many seconds no turn is given yet; 0 where nobody asked for that."""
        with self._lock:
            return max(0.0, self._held_until - self._now())
