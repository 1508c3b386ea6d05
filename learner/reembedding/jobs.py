"""Re-embedding jobs: on disk before anybody hears of them, and run by one learner of those that share it."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from learner.encoders import Encoders
from learner.pools import usable_pool
from learner.ports import CancelCheck
from learner.reembedding.index_port import WritableIndex
from learner.reembedding.run import Progress, Reembedding
from learner.reembedding.store import Job, JobState, JobStore, ReembeddingRequest, again
from learner.reembedding.worker import JobWorker
from learner.text_encoder import TextEncoder
from sealpool.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from sealpool.runtime.logs import Logger
from sealpool.v1 import index_pb2
from sealpool.validation import check_name

_POLL_S = 0.5
_KEPT = 100


class ReembeddingJobs:
    """Starts, runs, watches and cancels jobs. Safe to share between threads; `close` it at the end.

    What counts is on disk: any learner that shares the directory answers for every job, and each runs one at a time.

    Parameters
    ----------
    directory
        Where records are kept.
    batch_items
        Items embedded and uploaded at once. More: less padding; a kill costs as many.
    max_waiting
        Jobs that may wait for the one that runs, over all learners that share the directory.
    scan_s
        Seconds between two looks for jobs that another learner took in or left behind.
    """

    def __init__(
        self,
        directory: Path,
        index: WritableIndex,
        encoders: Encoders,
        *,
        batch_items: int,
        max_waiting: int,
        log: Logger,
        scan_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = JobStore(directory, keep=_KEPT, log=log)
        self._changed = threading.Condition()
        self._worker = JobWorker(self._store, self._run, changed=self._changed, scan_s=scan_s, log=log, clock=clock)
        self._index = index
        self._encoders = encoders
        self._batch_items = batch_items
        self._max_waiting = max_waiting
        self._now = now
        self._closing = False

    def resume(self) -> None:
        """Go on with the jobs on disk that had not ended and that no other learner runs, now and from now on."""
        self._worker.begin()

    def close(self) -> None:
        """Stop the job that runs here after the texts at hand, and return when it has stopped.

        Another learner goes on with it, or this one after its next `resume`.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._worker.close()

    def start(self, request: ReembeddingRequest) -> Job:
        """Start a job, or go on with one that failed or was cancelled; one that runs or has finished is returned.

        Raises
        ------
        InvalidArgument
            No encoder, or one and a checkpoint; an encoder of images; the target is the source or an alias; a bad
            name.
        NotFound
            There is no such source pool or checkpoint.
        FailedPrecondition
            The encoder cannot be loaded, the checkpoint's model has none, or the target has another dimension.
        ResourceExhausted
            As many jobs wait already as may.
        Unavailable
            The learner stops, or the index server is away.
        """
        known = self._store.read(request.id)
        if known is not None and known.state in (JobState.RUNNING, JobState.FINISHED):
            return known
        checked = self._check(request, known)
        if self._closing:
            raise Unavailable("the learner stops")
        with self._store.changing():
            known = self._store.read(request.id)
            if known is not None and known.state in (JobState.RUNNING, JobState.FINISHED):
                return known
            running = sum(job.state is JobState.RUNNING for job in self._store.read_all())
            if running > self._max_waiting:
                raise ResourceExhausted(
                    "one more re-embedding waiting", limit=self._max_waiting, setting="max_waiting_reembeddings"
                )
            self._store.write(checked)
            self._store.forget_old()
        self._worker.begin()
        return checked

    def watch(self, job_id: str, *, left: CancelCheck = lambda: False) -> Iterator[Job]:
        """Yield a job as it is, and each time that it changed, until it has ended or the watcher left.

        Raises
        ------
        NotFound
            There is no such job.
        Unavailable
            The learner stops.
        """
        seen: Job | None = None
        while seen is None or seen.state is JobState.RUNNING:
            while (job := self._get(job_id)) == seen:
                if self._closing:
                    raise Unavailable("the learner stops; the job goes on at another, or when it starts again")
                if left():
                    return
                with self._changed:
                    self._changed.wait(_POLL_S)
            seen = job
            yield job

    def cancel(self, job_id: str) -> Job:
        """End a job, whether it runs or waits; what is in its target stays. One that has ended is returned as it is.

        Raises
        ------
        NotFound
            There is no such job.
        """
        latest = self._get(job_id)
        with self._store.changing():
            job = self._store.read(job_id) or latest
            if job.state is JobState.RUNNING:
                job = replace(latest, state=JobState.CANCELLED)
                self._store.write(job)
                self._worker.stop(job_id)
        with self._changed:
            self._changed.notify_all()
        return job

    def _get(self, job_id: str) -> Job:
        job = self._worker.latest(job_id) or self._store.read(job_id)
        if job is None:
            raise NotFound("job", job_id[:64], field="id")
        return job

    def _check(self, request: ReembeddingRequest, known: Job | None) -> Job:
        for field, name in (("source_pool", request.source_pool), ("target_pool", request.target_pool)):
            check_name(field, name)
        if request.alias:
            check_name("alias", request.alias)
        if request.target_pool in (request.source_pool, request.alias):
            raise InvalidArgument("target_pool", "is the source or the alias")
        if bool(request.options.encoder) == (request.checkpoint is not None):
            raise InvalidArgument("encoder", "give an encoder or a checkpoint, one of the two")
        source = known.source if known is not None else usable_pool(self._index, request.source_pool).spec.name
        encoder = self._encoder(request)
        there = self._target(request.target_pool)
        if there is not None:
            _check_target(request, there, source, _dimension(encoder, request))
        if known is not None:
            return again(known, started_s=self._now())
        return Job(request=request, source=source, owns_target=there is None, started_s=self._now())

    def _target(self, name: str) -> index_pb2.PoolSpec | None:
        try:
            return usable_pool(self._index, name).spec
        except NotFound:
            return None

    def _encoder(self, request: ReembeddingRequest) -> TextEncoder:
        checkpoint = request.checkpoint
        if checkpoint is not None:
            return self._encoders.of_checkpoint(checkpoint.campaign, checkpoint.round)
        encoder = self._encoders.get(request.options.encoder)
        if not isinstance(encoder, TextEncoder):
            raise InvalidArgument("encoder.encoder", "reads images; the items of a pool have texts")
        return encoder

    def _run(self, job: Job, stop: threading.Event, progress: Callable[[Progress], None]) -> None:
        self._reembedding(job, stop, progress).run()

    def _reembedding(self, job: Job, stop: threading.Event, progress: Callable[[Progress], None]) -> Reembedding:
        request = job.request
        encoder = self._encoder(request)
        return Reembedding(
            index=self._index,
            encoder=encoder,
            options=request.options,
            source=job.source,
            target=request.target_pool,
            dimension=_dimension(encoder, request),
            owns_target=job.owns_target,
            alias=request.alias,
            batch_items=self._batch_items,
            stopped=stop,
            progress=progress,
        )


def _dimension(encoder: TextEncoder, request: ReembeddingRequest) -> int:
    return int(encoder.embed(["a"], request.options).shape[1])


def _check_target(request: ReembeddingRequest, there: index_pb2.PoolSpec, source: str, dimension: int) -> None:
    if there.name == source:
        raise InvalidArgument("target_pool", "is the source")
    if there.name != request.target_pool:
        raise InvalidArgument("target_pool", f"is an alias of {there.name!r}; give the name of a pool")
    if there.dimension != dimension:
        raise FailedPrecondition(
            f"{there.name!r} has dimension {there.dimension:,}, the encoder {dimension:,}", field="target_pool"
        )
