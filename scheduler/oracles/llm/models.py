"""All endpoints of a scheduler, each with its one client that campaigns share."""

import random
import threading
from collections.abc import Callable, Mapping

from scheduler.oracles.llm.client import Backoff, EndpointClient
from scheduler.oracles.llm.endpoints import Endpoint, endpoint_named
from scheduler.oracles.llm.metrics import LlmMetrics
from scheduler.oracles.llm.underway import Underway
from sealpool.errors import Unavailable
from sealpool.runtime.logs import Logger


class LanguageModels:
    """Hands out the clients. They are made when they are first asked for, so that `openai` is needed only then."""

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        *,
        metrics: LlmMetrics,
        log: Logger,
        backoff: Backoff | None = None,
        randomness: random.Random | None = None,
    ) -> None:
        self.endpoints = endpoints
        self.metrics = metrics
        self._log = log
        self._backoff = backoff or Backoff()
        self._randomness = randomness or random.Random()  # noqa: S311 - of pauses alone
        self._stopping = threading.Event()
        self._underway = Underway()
        self._lock = threading.Lock()
        self._clients: dict[str, EndpointClient] = {}

    def client(self, name: str, *, field: str) -> EndpointClient:
        """Return the client of an endpoint.

        Parameters
        ----------
        field
            Of the request that names it.

        Raises
        ------
        FailedPrecondition
            No such endpoint, or `openai` is not installed.
        Unavailable
            The scheduler is stopping.
        """
        endpoint = endpoint_named(self.endpoints, name, field=field)
        with self._lock:
            if self._stopping.is_set():
                raise Unavailable("the scheduler is stopping")
            if name not in self._clients:
                self._clients[name] = EndpointClient(
                    name,
                    endpoint,
                    stopping=self._stopping,
                    underway=self._underway,
                    metrics=self.metrics,
                    log=self._log,
                    backoff=self._backoff,
                    randomness=self._randomness,
                )
            return self._clients[name]

    def stop(self) -> None:
        """Send nothing more. Answers that are waited for are taken, since they will be paid for."""
        with self._lock:
            self._stopping.set()

    def when_idle(self, then: Callable[[], None]) -> None:
        """Call `then` once no answer is waited for: now, or as soon as that is so, on any thread."""
        self._underway.when_none(then)

    def end(self, within_s: float) -> None:
        """Stop, and wait so long for the answers under way. Those that are late are cut off, and asked for again."""
        self.stop()
        if not self._underway.wait(within_s):
            self._log.warning("answers of language models cut off: they took longer than grace_s")
        for client in self._clients.values():
            client.cut()

    def close(self) -> None:
        """Stop, wait for the answers under way, and close the connections."""
        self.stop()
        for client in self._clients.values():
            client.close()
