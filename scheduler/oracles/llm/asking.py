"""Asks about items: each question once, its answer on disk before it is used."""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from functools import partial

from scheduler.domain.answers import Answer
from scheduler.domain.llm_spec import samples_of
from scheduler.domain.states import Outcome
from scheduler.oracles.llm.budget import Budget, NoRoom
from scheduler.oracles.llm.client import EndpointClient, Reply
from scheduler.oracles.llm.metrics import LlmMetrics
from scheduler.oracles.llm.questions import Question
from scheduler.oracles.llm.reading import Malformed, Said, read_answer
from scheduler.oracles.llm.verdict import verdict
from scheduler.oracles.port import OracleExhausted
from scheduler.storage import llm_answers
from scheduler.storage.store import Store
from sealpool.errors import FailedPrecondition, SealpoolError, Unavailable
from sealpool.failpoint import reach
from sealpool.types import ItemId
from sealpool.v1 import scheduler_pb2

Work = tuple[ItemId, Question | None]
"""An item and what is asked of it; None where it has no text."""

KEEPING_PAUSES_S = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Between tries to write down what was paid for: a database that restarts or fails over is back by then."""


class Asker:
    """Asks one campaign's questions. Any thread may ask."""

    def __init__(
        self,
        *,
        store: Store,
        campaign_id: int,
        spec: scheduler_pb2.CampaignSpec,
        client: EndpointClient,
        budget: Budget,
        metrics: LlmMetrics,
        pauses_s: Sequence[float] = KEEPING_PAUSES_S,
    ) -> None:
        self._store = store
        self._campaign_id = campaign_id
        self._spec = spec
        self._client = client
        self._budget = budget
        self._metrics = metrics
        self._pauses_s = pauses_s
        self._changed = threading.Condition()
        self._asked: set[tuple[str, int]] = set()

    def ask(self, item: ItemId, question: Question | None) -> Answer:
        """Return what the model says of an item; asked again it costs nothing.

        Raises
        ------
        NoRoom
            A limit has no room for another question now.
        Unavailable, FailedPrecondition
            As `EndpointClient.ask`.
        """
        if question is None:
            return Answer(item_id=item, outcome=Outcome.CANNOT_TELL, comment="it has no text")
        said = [self._sample(item, question, sample) for sample in range(samples_of(self._spec.oracle.llm))]
        return verdict(self._spec, item, said)

    def _sample(self, item: ItemId, question: Question, sample: int) -> Said | None:
        text = self._answer(item, question, sample)
        try:
            return read_answer(self._spec, text)
        except Malformed as error:
            repair = question.after(text, str(error))
        try:
            return read_answer(self._spec, self._answer(item, repair, sample))
        except Malformed:
            return None

    def _answer(self, item: ItemId, question: Question, sample: int) -> str:
        prompt_hash = question.hash
        with self._alone(prompt_hash, sample):
            return self._answer_once(item, question, prompt_hash, sample)

    @contextmanager
    def _alone(self, prompt_hash: str, sample: int) -> Iterator[None]:
        """Wait while the same is being asked: items with the same text are the same question, and paid for once."""
        key = prompt_hash, sample
        with self._changed:
            self._changed.wait_for(lambda: key not in self._asked)
            self._asked.add(key)
        try:
            yield
        finally:
            with self._changed:
                self._asked.discard(key)
                self._changed.notify_all()

    def _answer_once(self, item: ItemId, question: Question, prompt_hash: str, sample: int) -> str:
        with self._store.reading() as session:
            known = llm_answers.find(session, self._campaign_id, prompt_hash=prompt_hash, sample=sample)
        if known is not None:
            return known
        with self._budget.reserved(question.tokens) as taken:
            reply = self._client.ask(question, tokens=taken.estimate)
            taken.tokens_in, taken.tokens_out = reply.tokens_in, reply.tokens_out
            self._keep(item, question, prompt_hash, sample, reply)
        reach("scheduler.llm.after_answer")
        return reply.text

    def _keep(self, item: ItemId, question: Question, prompt_hash: str, sample: int, reply: Reply) -> None:
        cost = self._client.endpoint.cost(tokens_in=reply.tokens_in, tokens_out=reply.tokens_out)
        answer = llm_answers.NewAnswer(
            item_id=item,
            prompt_hash=prompt_hash,
            sample=sample,
            endpoint=question.endpoint,
            model=question.model,
            answer=reply.text,
            problem=reply.refused or self._problem(reply.text),
            tokens_in=reply.tokens_in,
            tokens_out=reply.tokens_out,
            cost=cost,
        )
        self._write(answer)
        self._metrics.tokens.labels(self._client.name, "in").inc(reply.tokens_in)
        self._metrics.tokens.labels(self._client.name, "out").inc(reply.tokens_out)
        self._metrics.cost.labels(self._client.name).inc(cost)

    def _write(self, answer: llm_answers.NewAnswer) -> None:
        for pause_s in (*self._pauses_s, None):
            try:
                with self._store.writing() as session:
                    llm_answers.add(session, self._campaign_id, answer, now=self._store.clock.now())
            except Unavailable:
                if pause_s is None:
                    raise
                time.sleep(pause_s)
            else:
                return

    def _problem(self, text: str) -> str:
        try:
            read_answer(self._spec, text)
        except Malformed as error:
            return str(error)
        return ""


class Inquiry:
    """Has items asked about, as many at once as the endpoint takes, until none is left or something is in the way.

    What is in the way stops new questions. Those under way are waited for, and their answers yielded, before it is
    raised: they are paid for.
    """

    def __init__(self, asker: Asker, client: EndpointClient, work: Iterator[Work]) -> None:
        self._asker = asker
        self._client = client
        self._work = work
        self._put_back: deque[Work] = deque()
        self._running: dict[Future[Answer], Work] = {}
        self._careful = False  # a question found no room: ask one at a time until one does
        self._error: SealpoolError | OracleExhausted | None = None

    def answers(self) -> Iterator[Sequence[Answer]]:
        """Yield answers as they come.

        Raises
        ------
        OracleExhausted
            A limit has no room for another question, with none under way.
        Unavailable, FailedPrecondition
            As `EndpointClient.ask`.
        """
        try:
            while self._submit():
                done, _ = wait(self._running, return_when=FIRST_COMPLETED)
                alone = self._careful and len(self._running) == 1
                answered = [answer for future in done if (answer := self._take(future, alone=alone)) is not None]
                if answered:
                    yield answered
        finally:
            for future in self._running:
                future.cancel()
        if self._error is not None:
            raise self._error

    def _submit(self) -> bool:
        """Keep the endpoint busy; return whether anything is under way."""
        limit = 1 if self._careful else self._client.endpoint.max_concurrency
        while self._error is None and len(self._running) < limit:
            try:
                work = self._put_back.popleft() if self._put_back else next(self._work, None)
                if work is None:
                    break
                self._running[self._client.submit(partial(self._asker.ask, *work))] = work
            except SealpoolError as error:
                self._fail(error)
        return bool(self._running)

    def _take(self, future: Future[Answer], *, alone: bool) -> Answer | None:
        work = self._running.pop(future)
        try:
            answer = future.result()
        except NoRoom as error:
            # Beside others under way it may only be their estimates that take the room.
            self._put_back.append(work)
            self._careful = True
            if alone:
                self._fail(OracleExhausted(str(error)))
            return None
        except SealpoolError as error:
            self._fail(error)
            return None
        self._careful = False
        return answer

    def _fail(self, error: SealpoolError | OracleExhausted) -> None:
        # What a person has to mend is told rather than what time may.
        if self._error is None or isinstance(error, FailedPrecondition):
            self._error = error
