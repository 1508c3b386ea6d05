"""Takes re-embedding jobs from the disk, one after another, and sees each through to its end on disk."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import replace

from learner.reembedding.locks import Lock
from learner.reembedding.run import Progress
from learner.reembedding.store import Job, JobState, JobStore
from sealpool.errors import FailedPrecondition, SealpoolError
from sealpool.runtime.logs import Logger

_POLL_S = 0.5
_TELL_S = 2.0

RunJob = Callable[[Job, threading.Event, Callable[[Progress], None]], None]
"""Does a job until it is done or the event is set, and tells how far it is."""


class JobWorker:
    """Runs the jobs of a store that no other learner runs. `close` it at the end.

    Who runs a job holds its claim. When that process dies the claim goes with it, and another worker that finds the
    job unfinished goes on with it. A job that was cancelled at another learner stops within half a second.

    Parameters
    ----------
    run
        Called in a thread of its own; what it raises is how the job failed.
    changed
        Notified when a job got on, or ended.
    scan_s
        Seconds between two looks for jobs that another learner took in or left behind. Each reads all records.
    """

    def __init__(
        self,
        store: JobStore,
        run: RunJob,
        *,
        changed: threading.Condition,
        scan_s: float,
        log: Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._run = run
        self._changed = changed
        self._scan_s = scan_s
        self._log = log
        self._clock = clock
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._running: tuple[Job, threading.Event] | None = None
        self._failing = False
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="reembed")
        self._thread = threading.Thread(target=self._work, name="reembedding-jobs")

    def begin(self) -> None:
        """Look for jobs from now on; again where it does already, at once."""
        with self._changed:
            if self._thread.ident is None and not self._closing.is_set():
                self._thread.start()
        self._wake.set()

    def close(self) -> None:
        """Stop the job that runs after the texts at hand, leave it to whoever looks next, and return then."""
        with self._changed:
            self._closing.set()
            if self._running is not None:
                self._running[1].set()
            started = self._thread.ident is not None
        self._wake.set()
        if started:
            self._thread.join()
        self._executor.shutdown(wait=True)

    def stop(self, job_id: str) -> None:
        """Stop a job if it runs here."""
        with self._changed:
            if self._running is not None and self._running[0].id == job_id:
                self._running[1].set()

    def latest(self, job_id: str) -> Job | None:
        """Return how far a job is that runs here, which is more than the disk knows."""
        with self._changed:
            if self._running is None or self._running[0].id != job_id or self._running[1].is_set():
                return None
            return self._running[0]

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wake.clear()
            if not self._work_once():
                self._wake.wait(self._scan_s)

    def _work_once(self) -> bool:
        """Take a job and see it through; return whether there was one and its end is on disk."""
        ended = False
        with self._files_may_fail():
            taken = self._take()
            if taken is not None:
                job, claim = taken
                with claim:
                    self._see_through(job)
                ended = True
        return ended

    @contextmanager
    def _files_may_fail(self) -> Iterator[None]:
        """Pass over files that cannot be read or written now: what was not recorded is done again."""
        try:
            yield
        except (OSError, FailedPrecondition) as error:
            if not self._failing:
                self._log.warning("records of re-embedding jobs cannot be read or written", reason=str(error))
            self._failing = True
        else:
            self._failing = False

    def _take(self) -> tuple[Job, Lock] | None:
        for seen in self._store.read_all():
            claim = self._store.claim(seen.id) if seen.state is JobState.RUNNING else None
            if claim is None:
                continue
            job = self._store.read(seen.id)  # as it is now that nobody else runs it
            if job is not None and job.state is JobState.RUNNING:
                return job, claim
            claim.close()
        return None

    def _see_through(self, job: Job) -> None:
        stop = threading.Event()
        with self._changed:
            self._running = (job, stop)
            if self._closing.is_set():
                stop.set()
        future = self._executor.submit(self._run, job, stop, self._teller(job, stop))
        try:
            self._watch(job, stop, future)
            self._settle(job.id, stop, future)
        finally:
            with self._changed:
                self._running = None
                self._changed.notify_all()

    def _teller(self, job: Job, stop: threading.Event) -> Callable[[Progress], None]:
        began = self._clock()

        def progress(told: Progress) -> None:
            elapsed_s = self._clock() - began
            rate = told.embedded / elapsed_s if elapsed_s > 0 else 0.0
            with self._changed:
                self._running = (replace(job, items=told.items, done=told.done, rows_per_second=rate), stop)
                self._changed.notify_all()

        return progress

    def _watch(self, job: Job, stop: threading.Event, future: Future[None]) -> None:
        """Return when a job has ended; meanwhile write how far it is, and stop it when it was cancelled elsewhere."""
        written_at = self._clock()
        while not wait_for([future], timeout=_POLL_S).done:
            if stop.is_set():
                continue
            with self._files_may_fail():
                there = self._store.read(job.id)
                if there is not None and there.state is not JobState.RUNNING:
                    stop.set()
                elif self._clock() - written_at >= _TELL_S:
                    written_at = self._clock()
                    self._record(JobState.RUNNING, "")

    def _settle(self, job_id: str, stop: threading.Event, future: Future[None]) -> None:
        if stop.is_set():
            return  # cancelled, which is on disk; or this learner stops, and the job is to go on
        error = future.exception()
        if error is None:
            self._record(JobState.FINISHED, "")
        else:
            self._record(JobState.FAILED, self._words(job_id, error))

    def _record(self, state: JobState, error: str) -> None:
        with self._store.changing():
            with self._changed:
                if self._running is None:
                    raise AssertionError("a job is recorded that does not run")
                job = self._running[0]
            there = self._store.read(job.id)
            if there is not None and there.state is JobState.RUNNING:
                self._store.write(replace(job, state=state, error=error))

    def _words(self, job_id: str, error: BaseException) -> str:
        if isinstance(error, SealpoolError):
            self._log.warning("re-embedding failed", job=job_id, reason=error.message)
            return error.message
        self._log.error("re-embedding failed by a fault of ours", job=job_id, exc_info=error)
        return "a fault of the learner; its log has it under this job's id"
