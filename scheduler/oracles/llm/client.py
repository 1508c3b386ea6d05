"""Asks one endpoint: paced, at most so many requests at once, and again where that may help."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from scheduler.oracles.llm.endpoints import Endpoint
from scheduler.oracles.llm.metrics import LlmMetrics
from scheduler.oracles.llm.pacing import Pacer
from scheduler.oracles.llm.questions import BYTES_A_TOKEN, Question
from scheduler.oracles.llm.templates import missing
from scheduler.oracles.llm.underway import Underway
from sealpool.errors import FailedPrecondition, Unavailable
from sealpool.runtime.logs import Logger

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI
    from openai.types.chat import ChatCompletion

    from scheduler.oracles.llm.connections import Connections

T = TypeVar("T")

TRANSIENT_STATUS = frozenset({408, 409, 425, 429})
"""Beside 500 and above."""
UNFIT_TEXT = frozenset({"context_length_exceeded", "content_filter", "string_above_max_length"})
"""Codes of a refusal that is about this text alone."""
OUT_OF_MONEY = "insufficient_quota"
LONGEST_WAIT_S = 300.0
"""Of a Retry-After that is waited for in place. In a longer one nothing is sent, and the round waits."""
LONGEST_HOLD_S = 3600.0
"""Of a Retry-After that is believed: an endpoint that asks for ten hours, or for ever, is asked again after this."""
MAX_TOKENS = 1_000_000_000
"""Of one answer as the endpoint counts it; more is no count."""
SHOWN_CHARACTERS = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What came back. `refused` says why the endpoint does not take this text, "" where it does."""

    text: str
    tokens_in: int
    tokens_out: int
    refused: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """Pauses between tries: doubling, each a random share of itself."""

    first_s: float = 0.5
    longest_s: float = 30.0

    def pause_s(self, attempt: int, share: float) -> float:
        """Return the pause after the attempt of that number, from 1; `share` is 0 to 1."""
        return min(self.longest_s, self.first_s * 2.0 ** (attempt - 1)) * (0.5 + share / 2)


class EndpointClient:
    """One endpoint's threads, pace and connection. Any thread may use it.

    Parameters
    ----------
    stopping
        Set when the scheduler stops: waits end, and no request begins.
    underway
        Counts the work that was submitted.
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        *,
        stopping: threading.Event,
        underway: Underway,
        metrics: LlmMetrics,
        log: Logger,
        backoff: Backoff,
        randomness: random.Random,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self._stopping = stopping
        self._underway = underway
        self._metrics = metrics
        self._log = log
        self._backoff = backoff
        self._randomness = randomness
        self._pacer = Pacer(
            requests_per_minute=endpoint.requests_per_minute, tokens_per_minute=endpoint.tokens_per_minute, now=now
        )
        self._threads = ThreadPoolExecutor(endpoint.max_concurrency, thread_name_prefix=f"llm-{name}")
        self._connections, self._client = _open(endpoint)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run `work`, which asks, on one of the endpoint's threads: as many as it takes requests at once."""
        try:
            future = self._threads.submit(copy_context().run, work)
        except RuntimeError as error:  # the pool was shut down
            raise _is_stopping() from error
        self._underway.add(future)
        return future

    def ask(self, question: Question, *, tokens: int) -> Reply:
        """Ask, and wait for the answer. Call it in work that was submitted.

        Parameters
        ----------
        tokens
            How many the question and its answer are about to take.

        Raises
        ------
        Unavailable
            The endpoint is away or overloaded for longer than `max_attempts` tries, or the scheduler is stopping.
        FailedPrecondition
            It refuses what is asked: a wrong key, an unknown model, a parameter that it does not take.
        """
        for attempt in range(1, self.endpoint.max_attempts + 1):
            self._wait_for_turn(question, tokens)
            problem, wait_s = self._try(question, tokens)
            if isinstance(problem, Reply):
                return problem
            if wait_s is not None:
                self._pacer.hold(wait_s)  # for everyone: the others would be refused as well
            if attempt == self.endpoint.max_attempts:
                break
            self._metrics.retries.labels(self.name).inc()
            self._log.info("language model asked again", endpoint=self.name, attempt=attempt, problem=problem)
            pause_s = self._backoff.pause_s(attempt, self._randomness.random())
            self._check_held(question)
            self._wait(max(pause_s, wait_s or 0))
        raise Unavailable(f"{self._where(question)} does not answer: {problem}", retry_after_s=wait_s)

    def cut(self) -> None:
        """End the requests under way: whoever waits for them is told that the scheduler is stopping."""
        self._connections.cut()

    def close(self) -> None:
        """Wait for the requests under way, and close the connections."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    def _try(self, question: Question, tokens: int) -> tuple[Reply | str, float | None]:
        """Send once; return the reply, or what was wrong that time may mend and how long it takes, if that was said."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAIError

        outcome, used = "error", 0
        self._metrics.in_flight.labels(self.name).inc()
        try:
            reply = _reply(question, self._send(question))
            outcome, used = "answered", reply.tokens_in + reply.tokens_out
        except APIStatusError as error:
            outcome = _outcome(error.status_code)
            return self._refused(question, error)
        except APITimeoutError:
            outcome = "timeout"
            return f"no answer within {self.endpoint.timeout_s:g} s", None
        except APIConnectionError as error:
            outcome = "connection"
            return self._public(f"the connection broke: {error.__cause__ or error}"), None
        except (OpenAIError, ValueError, TypeError, LookupError, AttributeError):
            # The client trusts what comes to be what the protocol says, and stumbles where it is not.
            outcome = "garbage"
            return "the answer is not what the chat completions protocol says", None
        else:
            return reply, None
        finally:
            self._metrics.in_flight.labels(self.name).dec()
            self._metrics.requests.labels(self.name, outcome).inc()
            self._pacer.settle(estimated=tokens, used=used)

    def _send(self, question: Question) -> "ChatCompletion":
        messages: Any = list(question.messages)
        answer: ChatCompletion = self._client.chat.completions.create(
            model=question.model, messages=messages, **question.settings
        )
        return answer

    def _refused(self, question: Question, error: "APIStatusError") -> tuple[Reply | str, float | None]:
        status, code = error.status_code, error.code if isinstance(error.code, str) else ""
        if code in UNFIT_TEXT:
            return Reply(text="", tokens_in=0, tokens_out=0, refused=f"the endpoint refuses this text: {code}"), None
        if (status in TRANSIENT_STATUS and code != OUT_OF_MONEY) or status >= 500:
            return f"HTTP {status}", _retry_after_s(error)
        where = self._where(question)
        if status == 401:  # what it says may quote the key
            raise FailedPrecondition(f"{where} refuses the key (HTTP 401): see api_key_file or api_key_env")
        raise FailedPrecondition(f"{where} refuses (HTTP {status}): {self._public(error.message)}")

    def _wait_for_turn(self, question: Question, tokens: int) -> None:
        while True:
            self._check_held(question)
            self._wait(self._pacer.turn_in(tokens))
            if not self._pacer.held_for():
                return
            self._pacer.settle(estimated=tokens, used=0)  # held while this one waited: it lines up again

    def _check_held(self, question: Question) -> None:
        held_s = self._pacer.held_for()
        if held_s > LONGEST_WAIT_S:
            problem = f"asks for a pause of {held_s:.0f} s"
            raise Unavailable(f"{self._where(question)} {problem}", retry_after_s=held_s)

    def _where(self, question: Question) -> str:
        return f"endpoint {self.name!r}, model {question.model!r}"

    def _public(self, text: str) -> str:
        key = self.endpoint.api_key.get_secret_value()
        return (text.replace(key, "***") if key else text)[:SHOWN_CHARACTERS]

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds) if seconds > 0 else self._stopping.is_set():
            raise _is_stopping()


def _open(endpoint: Endpoint) -> "tuple[Connections, OpenAI]":
    try:
        from openai import OpenAI

        from scheduler.oracles.llm.connections import Connections
    except ImportError as error:
        raise missing("openai") from error
    connections = Connections(timeout_s=endpoint.timeout_s)
    client = OpenAI(
        base_url=endpoint.base_url,
        # Without a key of its own the client would take OPENAI_API_KEY, meant for somebody else.
        api_key=endpoint.api_key.get_secret_value() or "none",
        max_retries=0,
        timeout=endpoint.timeout_s,
        http_client=connections.client,
    )
    # These it takes from the environment too, and sends to any endpoint.
    client.organization = client.project = client.admin_api_key = None
    return connections, client


def _reply(question: Question, answer: "ChatCompletion") -> Reply:
    message = answer.choices[0].message
    # An answer that was cut may end in half of a character, which no database takes.
    content = (message.content or message.refusal or "").encode(errors="replace")
    told_in, told_out = (getattr(answer.usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
    return Reply(
        text=content.decode(),
        tokens_in=_counted(told_in, question.tokens),
        tokens_out=_counted(told_out, len(content) // BYTES_A_TOKEN + 1),
    )


def _counted(told: object, estimate: int) -> int:
    """Return how many tokens an endpoint says there were, or the estimate: some do not count, or not in numbers."""
    return told if isinstance(told, int) and 0 <= told <= MAX_TOKENS else estimate


def _outcome(status: int) -> str:
    if status == 429:
        return "limited"
    return "server_error" if status >= 500 else "refused"


def _retry_after_s(error: "APIStatusError") -> float | None:
    told = error.response.headers.get("retry-after", "")
    try:
        return _bounded(float(told))
    except ValueError:
        pass
    try:
        then = parsedate_to_datetime(told)
        since = parsedate_to_datetime(error.response.headers.get("date", ""))
        return _bounded((then - since).total_seconds())
    except (ValueError, TypeError):
        return None


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), LONGEST_HOLD_S)


def _is_stopping() -> Unavailable:
    return Unavailable("the scheduler is stopping; the round goes on when it is back")
