"""What a campaign may spend on a language model."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from scheduler.domain.llm_spec import max_cost_of, max_tokens_of
from scheduler.oracles.llm.endpoints import Endpoint
from scheduler.storage.llm_answers import Spent
from sealpool.v1 import scheduler_pb2

FIRST_ANSWER_TOKENS = 64
"""What an answer is taken to need before there was one; ours have about 30."""


class NoRoom(Exception):
    """Another question would go beyond a limit; the message names it, and stays the same while the limit does."""


@dataclass(kw_only=True, slots=True)
class Reservation:
    """What a question was allowed to take; `tokens_in` and `tokens_out` become what it took."""

    estimate: int
    tokens_in: int = 0
    tokens_out: int = 0


class Budget:
    """Tokens and money of one campaign, of which questions under way hold a share. Any thread may use it.

    Each is estimated before it is asked: its own tokens by its length, those of its answer by the longest so far. So
    a campaign goes beyond its limits by at most what the answers under way are longer than all before.
    """

    def __init__(self, llm: scheduler_pb2.LlmSpec, endpoint: Endpoint, spent: Spent) -> None:
        self._llm = llm
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._tokens = spent.tokens_in + spent.tokens_out
        self._cost = spent.cost
        self._answer = min(max(spent.longest_answer, FIRST_ANSWER_TOKENS), endpoint.max_answer_tokens)

    @contextmanager
    def reserved(self, tokens_in: int) -> Iterator[Reservation]:
        """Hold what a question is about to take; on leaving, what the block says that it took is spent.

        Raises
        ------
        NoRoom
            It does not fit in beside what is spent and held now.
        """
        with self._lock:
            tokens_out = self._answer
            tokens, cost = tokens_in + tokens_out, self._endpoint.cost(tokens_in=tokens_in, tokens_out=tokens_out)
            self._check(tokens, cost)
            self._spend(tokens, cost)
        taken = Reservation(estimate=tokens)
        try:
            yield taken
        finally:
            used = self._endpoint.cost(tokens_in=taken.tokens_in, tokens_out=taken.tokens_out)
            with self._lock:
                self._spend(taken.tokens_in + taken.tokens_out - tokens, used - cost)
                self._answer = max(self._answer, taken.tokens_out)

    def _check(self, tokens: int, cost: float) -> None:
        if self._tokens + tokens > max_tokens_of(self._llm):
            raise NoRoom(_reason(f"max_tokens = {self._llm.max_tokens:,}"))
        if self._cost + cost > max_cost_of(self._llm):
            raise NoRoom(_reason(f"max_cost = {self._llm.max_cost:g}"))

    def _spend(self, tokens: int, cost: float) -> None:
        self._tokens += tokens
        self._cost += cost


def _reason(limit: str) -> str:
    return f"the language model's {limit} has no room for another question: raise it and resume"
