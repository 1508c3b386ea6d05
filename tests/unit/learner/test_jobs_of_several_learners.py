"""Re-embedding jobs of learners that share a directory: each runs at one of them, and any answers for it."""

import fcntl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
import torch

from learner.encoders import EmbedOptions, Encoders
from learner.reembedding.jobs import ReembeddingJobs
from learner.reembedding.locks import take
from learner.reembedding.store import CheckpointName, Job, JobState, JobStore, ReembeddingRequest
from sealpool.errors import FailedPrecondition, ResourceExhausted
from tests.support.pools_in_memory import WAIT_S, Gate, Pools

LOG = structlog.wrap_logger(structlog.ReturnLogger())
ITEMS = 20
HOLDER = """
import sys
from pathlib import Path
from learner.reembedding.locks import take
lock = take(Path(sys.argv[1]))
print(lock is not None, flush=True)
sys.stdin.read()
"""


class Letters:
    """A tokenizer and a model at once, small."""

    pad_token, pad_token_id, model_max_length = "~", 126, 16
    config = SimpleNamespace(hidden_size=8, max_position_embeddings=16)

    def __call__(self, some, *, max_length: int, **_: object) -> dict[str, list[list[int]]]:
        return {"input_ids": [list(text.encode()[:max_length]) for text in some]}


class Table(torch.nn.Module):
    config = Letters.config

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(127, 8)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.table(input_ids))


def classifier_of(_campaign: str, _round: int) -> object:
    return SimpleNamespace(encoder=lambda: (Letters(), Table()))


@pytest.fixture
def pools() -> Pools:
    return Pools({f"i{n:02}": "abcdefg"[n % 7] + " a" * (n % 5) for n in range(ITEMS)})


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., ReembeddingJobs]]:
    """Make a learner's jobs over one and the same directory."""
    made: list[ReembeddingJobs] = []

    def new(pools: Pools, *, max_waiting: int = 2, log: object = LOG) -> ReembeddingJobs:
        encoders = Encoders(
            torch.device("cpu"), keep=1, batch_tokens=64, allow_download=False, log=LOG, classifier_of=classifier_of
        )
        jobs = ReembeddingJobs(
            tmp_path / "jobs", pools, encoders, batch_items=4, max_waiting=max_waiting, log=log, scan_s=0.05
        )
        made.append(jobs)
        return jobs

    yield new
    for jobs in made:
        jobs.close()


def request(target: str = "new") -> ReembeddingRequest:
    checkpoint = CheckpointName(campaign="news", round=1)
    return ReembeddingRequest(
        source_pool="old", target_pool=target, options=EmbedOptions(encoder=""), checkpoint=checkpoint
    )


def last(jobs: ReembeddingJobs, job_id: str) -> Job:
    *_, end = jobs.watch(job_id)
    return end


def test_a_job_that_two_learners_are_asked_for_runs_once_and_both_tell_of_it(make, pools: Pools) -> None:
    gate, learners = Gate(pools), [make(pools), make(pools)]
    for learner in learners:
        learner.resume()
    started = [learner.start(request()) for learner in learners]
    assert started[0].id == started[1].id
    assert gate.reached.wait(WAIT_S)
    gate.open.set()
    assert [last(learner, started[0].id).state for learner in learners] == [JobState.FINISHED] * 2
    assert sorted(pools.upserted) == sorted(pools.items["old"])


def test_a_job_is_cancelled_at_a_learner_that_does_not_run_it(make, pools: Pools) -> None:
    gate, runs, other = Gate(pools), make(pools), make(pools)
    job = runs.start(request())
    assert gate.reached.wait(WAIT_S)
    assert other.cancel(job.id).state is JobState.CANCELLED
    states = runs.watch(job.id)
    while next(states).state is JobState.RUNNING:
        pass
    gate.open.set()
    runs.close()
    assert len(pools.upserted) == 8  # the batch at hand, and none after it
    assert last(other, job.id).state is JobState.CANCELLED


def test_a_job_waits_for_its_holder_and_is_taken_over_when_that_is_killed(make, pools: Pools, tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs", keep=9, log=LOG)
    job = Job(request=request(), source="old", owns_target=True, started_s=1.0)
    with store.changing():
        store.write(job)
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "jobs" / f"{job.id}.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path.cwd()) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        learner = make(pools)
        learner.resume()
        second = learner.start(request("another"))
        assert last(learner, second.id).state is JobState.FINISHED  # it passed over the first, which is held
        assert next(learner.watch(job.id)).state is JobState.RUNNING
        assert "new" not in pools.items
        holder.kill()
        holder.wait()
        assert last(learner, job.id).state is JobState.FINISHED
    assert len(pools.items["new"]) == ITEMS


def test_a_learner_goes_on_with_what_another_left_when_it_stopped(make, pools: Pools) -> None:
    gate, first, second = Gate(pools), make(pools), make(pools)
    job = first.start(request())
    assert gate.reached.wait(WAIT_S)
    second.resume()
    closing = threading.Thread(target=first.close)
    closing.start()
    gate.open.set()
    closing.join(WAIT_S)
    assert last(second, job.id).state is JobState.FINISHED
    assert sorted(pools.upserted) == sorted(pools.items["old"])


def test_the_waiting_jobs_of_all_learners_are_bounded_together(make, pools: Pools) -> None:
    gate, first, second = Gate(pools), make(pools, max_waiting=1), make(pools, max_waiting=1)
    jobs = [first.start(request("one")), second.start(request("two"))]
    for learner in (first, second):
        with pytest.raises(ResourceExhausted, match="max_waiting_reembeddings"):
            learner.start(request("three"))
    gate.open.set()
    assert [last(second, job.id).state for job in jobs] == [JobState.FINISHED] * 2


class HeardWarning:
    """A log that lets a test wait for a warning."""

    def __init__(self) -> None:
        self.heard = threading.Event()

    def warning(self, _event: str, **_fields: object) -> None:
        self.heard.set()


def test_an_end_that_the_disk_refused_is_recorded_when_it_can_be(make, pools: Pools, tmp_path: Path) -> None:
    log = HeardWarning()
    gate, learner = Gate(pools), make(pools, log=log)
    job = learner.start(request())
    assert gate.reached.wait(WAIT_S)
    lock = tmp_path / "jobs" / "records.lock"
    lock.unlink()
    lock.mkdir()  # what opens it fails, as where the file server is away
    gate.open.set()
    assert log.heard.wait(WAIT_S)
    assert next(learner.watch(job.id)).state is JobState.RUNNING
    lock.rmdir()
    assert last(learner, job.id).state is JobState.FINISHED
    assert len(pools.upserted) == ITEMS


def test_a_job_that_ended_before_its_holder_heard_of_the_cancellation_stays_cancelled(make, pools: Pools) -> None:
    for number in range(8, ITEMS):
        del pools.items["old"][f"i{number:02}"]
    gate, runs, other = Gate(pools), make(pools), make(pools)  # the gate is before the last batch
    job = runs.start(request())
    assert gate.reached.wait(WAIT_S)
    other.cancel(job.id)
    gate.open.set()
    assert last(runs, job.id).state is JobState.CANCELLED
    assert last(other, job.id).state is JobState.CANCELLED


def test_a_job_that_ended_while_a_learner_reached_for_it_is_not_run_again(
    make, pools: Pools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = JobStore(tmp_path / "jobs", keep=9, log=LOG)
    job = Job(request=request(), source="old", owns_target=True, started_s=1.0)
    with store.changing():
        store.write(job)
    flock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        if operation & fcntl.LOCK_NB:
            monkeypatch.setattr("fcntl.flock", flock)
            with store.changing():
                store.write(replace(job, state=JobState.FINISHED))
        flock(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", late)
    learner = make(pools)
    learner.resume()
    assert last(learner, job.id).state is JobState.FINISHED
    assert last(learner, learner.start(request("another")).id).state is JobState.FINISHED
    assert "new" not in pools.items


def test_the_lock_of_a_file_that_was_removed_meanwhile_is_no_claim(tmp_path: Path, monkeypatch) -> None:
    path, flock, others = tmp_path / "job.lock", fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        monkeypatch.setattr("fcntl.flock", flock)
        path.unlink()  # as one who forgets the job, and another takes it in anew
        others.append(take(path))
        flock(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", late)
    assert take(path) is None
    assert others[0] is not None
    others[0].close()
    with take(path):
        assert take(path) is None


def test_a_file_system_without_locks_is_named_before_a_job_is_taken_in(make, pools: Pools, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(FailedPrecondition, match="a file system without locks"):
        make(pools).start(request())
