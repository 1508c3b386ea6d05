"""Re-embedding jobs on disk: what was asked for, who runs it, and how it ended."""

import hashlib
import json
import secrets
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Self

from learner.encoders import EmbedOptions, Pooling
from learner.reembedding.locks import Lock, held, take
from sealpool.durable import make_directory, read_whole, write_durably
from sealpool.runtime.logs import Logger

FORMAT = 1
"""Of a record. Raised when an older learner would misread a newer one."""

ID_LENGTH = 32
_ID_CHARACTERS = frozenset("0123456789abcdef")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointName:
    """The checkpoint of a round."""

    campaign: str
    round: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ReembeddingRequest:
    """What was asked for.

    Parameters
    ----------
    options
        With `encoder` "" where a checkpoint is given.
    checkpoint
        Whose fine-tuned encoder is to be taken; None for the one that the options name.
    alias
        Given to the target at the end; "" for none.
    """

    source_pool: str
    target_pool: str
    options: EmbedOptions
    checkpoint: CheckpointName | None = None
    alias: str = ""

    @property
    def id(self) -> str:
        """A function of the request."""
        return hashlib.sha256(json.dumps(self.to_fields(), sort_keys=True).encode()).hexdigest()[:ID_LENGTH]

    def to_fields(self) -> dict[str, object]:
        """Return what JSON can hold."""
        fields = asdict(self)
        fields["options"]["pooling"] = self.options.pooling.value
        return fields

    @classmethod
    def from_fields(cls, fields: dict[str, object]) -> Self:
        """Return what `to_fields` was called on; raise KeyError, TypeError or ValueError if it was nothing of ours."""
        values = dict(fields)
        options, checkpoint = values.pop("options"), values.pop("checkpoint")
        if not isinstance(options, dict) or not isinstance(checkpoint, dict | None):
            raise TypeError("options or checkpoint are no objects")
        return cls(
            options=EmbedOptions(**(options | {"pooling": Pooling(options["pooling"])})),
            checkpoint=None if checkpoint is None else CheckpointName(**checkpoint),
            **values,  # type: ignore[arg-type]
        )


class JobState(Enum):
    """Where a job stands."""

    RUNNING = "running"  # or waiting for its turn
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One job.

    Parameters
    ----------
    source
        The source's own name: an alias may stand for the target by the time that a job goes on.
    owns_target
        Whether there was no target pool when the job was started: all that is in it came from the source.
    started_s
        Unix time of the last start.
    items, done, rows_per_second
        As in the proto's ReembeddingJob.
    """

    request: ReembeddingRequest
    source: str
    owns_target: bool
    started_s: float
    state: JobState = JobState.RUNNING
    items: int = 0
    done: int = 0
    rows_per_second: float = 0.0
    error: str = ""

    @property
    def id(self) -> str:
        """A function of the request."""
        return self.request.id


class JobStore:
    """Jobs as one JSON file each in a directory, which several learners may share. They hold all that is known.

    Parameters
    ----------
    keep
        Jobs that have ended of which records stay; `forget_old` removes more of them, the oldest first.
    """

    def __init__(self, directory: Path, *, keep: int, log: Logger) -> None:
        self._directory = directory
        self._keep = keep
        self._log = log
        self._writer = secrets.token_hex(8)
        self._unreadable: set[str] = set()

    def changing(self) -> AbstractContextManager[None]:
        """Keep every other learner from changing records: for reading one, deciding and writing it.

        Raises
        ------
        FailedPrecondition
            The file system has no locks.
        """
        make_directory(self._directory)
        return held(self._directory / "records.lock")

    def claim(self, job_id: str) -> Lock | None:
        """Return the right to run a job, which ends with the process at the latest; None if another learner has it."""
        return take(self._directory / f"{job_id}.lock")

    def write(self, job: Job) -> None:
        """Put a job on disk, in place of what was there of it. Only while `changing`."""
        fields = asdict(job) | {"request": job.request.to_fields(), "state": job.state.value, "format": FORMAT}
        write_durably(self._path(job.id), json.dumps(fields).encode(), writer=self._writer)

    def read(self, job_id: str) -> Job | None:
        """Return a job as it is on disk; None where there is none that can be read."""
        if len(job_id) != ID_LENGTH or not set(job_id) <= _ID_CHARACTERS:  # it comes from a caller and names a file
            return None
        return self._read(self._path(job_id))

    def read_all(self) -> list[Job]:
        """Return all jobs, first started first."""
        paths = self._directory.glob("*.json") if self._directory.is_dir() else ()
        return sorted((job for job in map(self._read, paths) if job is not None), key=lambda job: job.started_s)

    def forget_old(self) -> None:
        """Remove the records of the jobs that ended first, so that `keep` stay. Only while `changing`."""
        ended = [job for job in self.read_all() if job.state is not JobState.RUNNING]
        for job in ended[: max(0, len(ended) - self._keep)]:
            self._path(job.id).unlink(missing_ok=True)
            (self._directory / f"{job.id}.lock").unlink(missing_ok=True)

    def _path(self, job_id: str) -> Path:
        return self._directory / f"{job_id}.json"

    def _read(self, path: Path) -> Job | None:
        try:
            return _job(json.loads(read_whole(path)))
        except FileNotFoundError:  # also one that was forgotten just now
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if path.name not in self._unreadable:  # records are read again and again
                self._unreadable.add(path.name)
                self._log.warning("record of a re-embedding job cannot be read", file=path.name, reason=str(error))
            return None


def _job(fields: dict[str, Any]) -> Job:
    if fields.pop("format") != FORMAT:
        raise ValueError("another format")
    request = ReembeddingRequest.from_fields(fields.pop("request"))
    return Job(request=request, state=JobState(fields.pop("state")), **fields)


def again(job: Job, *, started_s: float) -> Job:
    """Return a job that ended as one that runs again."""
    return replace(job, state=JobState.RUNNING, started_s=started_s, error="", rows_per_second=0.0)
