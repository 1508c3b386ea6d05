"""Threads that run rounds: one round of a campaign at a time, several campaigns at once."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context

from scheduler.rounds.beginning import RoundStarter
from scheduler.rounds.recording import Demoted
from scheduler.rounds.runner import RoundRunner
from sealpool.errors import SealpoolError, Unavailable
from sealpool.runtime.logs import Logger
from sealpool.runtime.request_ids import REQUEST_ID, make_request_id


class RoundPool:
    """Runs campaigns' rounds on a fixed number of threads, where this scheduler leads.

    Campaigns that wait are taken in the order they came, and one whose round has ended goes to the end of the line: of
    hundreds none waits for more than one round of each of the others.

    Parameters
    ----------
    threads
        Rounds that run at once.
    epoch
        Says in which epoch this scheduler leads; None while it follows.
    doubt
        Told the epoch in which this scheduler lost a round to another.
    tell
        Tells the leader to look after a campaign.
    """

    def __init__(
        self,
        *,
        runner: RoundRunner,
        starter: RoundStarter,
        threads: int,
        epoch: Callable[[], int | None],
        doubt: Callable[[int], None],
        tell: Callable[[str], None],
        log: Logger,
    ) -> None:
        self._runner = runner
        self._starter = starter
        self._epoch = epoch
        self._doubt = doubt
        self._tell = tell
        self._log = log
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="round")
        self._lock = threading.Lock()
        self._running: dict[str, Future[None]] = {}
        self._again: dict[str, Context] = {}
        self._closed = False
        self.stopping: Future[None] = Future()
        """Done once the pool stops: who waits for a round need wait no longer."""

    def run(self, name: str) -> Future[None] | None:
        """See to it that the campaign's unfinished round is run, and one that its after_labels rule asks for.

        Returns
        -------
        Future or None
            Done when the run that is going on now has ended; its exception is the transient error that stopped it, or
            Demoted where another scheduler took over. A round begun while it went on may take another run: whoever
            waits for a round looks whether it has ended, and asks again if not. None: another scheduler leads.

        Raises
        ------
        Unavailable
            The pool is closed.
        """
        with self._lock:
            if self._closed:
                raise Unavailable("the scheduler is stopping")
            if self._epoch() is None:
                return None
            running = self._running.get(name)
            if running is not None:
                self._again.setdefault(name, copy_context())
                return running
            context = copy_context()  # what runs belongs to the trace of who asked first
            future = self._executor.submit(context.run, self._work, name)
            self._running[name] = future
        future.add_done_callback(lambda ended: context.run(self._report, name, ended))
        return future

    def nudge(self, name: str) -> None:
        """Do as `run` does, or let the leader; never raise: whoever leads next looks after every campaign anyway."""
        try:
            running = self.run(name)
        except Unavailable:
            return
        if running is None:
            self._tell(name)

    def fire(self, name: str) -> None:
        """Begin a round for a timer, if there is anything to do, and see to it that it is run."""
        Context().run(self._fire, name)

    def _fire(self, name: str) -> None:
        REQUEST_ID.set(make_request_id())
        epoch = self._epoch()
        if epoch is None:
            return
        try:
            self._starter.begin_by_timer(name, epoch=epoch)
            self.run(name)
        except Unavailable as error:
            self._log.warning("timer fired in vain", campaign=name, error=error.message)

    def stop(self) -> None:
        """Stop before the next phases, and take nothing new."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self.stopping.set_result(None)
        self._runner.stop()

    def close(self) -> None:
        """Stop, and wait for the threads to end."""
        self.stop()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _work(self, name: str) -> None:
        if not REQUEST_ID.get():  # nobody asked: a timer, or a start after a stop
            REQUEST_ID.set(make_request_id())
        epoch = self._epoch()
        try:
            begun = epoch is not None and self._lead(name, epoch)
        finally:
            with self._lock:
                again = self._again.pop(name, None)
                del self._running[name]
        if begun or again is not None:
            # Not this round's: what follows is of who asked for it meanwhile, or of nobody.
            (Context() if again is None else again).run(self.nudge, name)

    def _lead(self, name: str, epoch: int) -> bool:
        try:
            self._runner.resume(name, epoch=epoch)
        except Demoted:
            self._doubt(epoch)
            raise
        return self._starter.begin_if_due(name, epoch=epoch)

    def _report(self, name: str, ended: Future[None]) -> None:
        error = None if ended.cancelled() else ended.exception()
        if error is not None and not isinstance(error, SealpoolError | Demoted):
            self._log.error("round stopped by a fault", campaign=name, exc_info=error)
