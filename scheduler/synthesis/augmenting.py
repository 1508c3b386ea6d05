"""Texts with words swapped, left out or misspelt, by nlpaug."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sealpool.errors import FailedPrecondition, InternalError, Unavailable

CHANGES = 4
_LIMIT_S = 120
_COMMAND = (sys.executable, "-m", "scheduler.synthesis.augment_child")


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A text, which of the changes is made to it (see `augment_child`), and the seed of what is drawn for that."""

    text: str
    kind: int
    seed: int


def augment(changes: Sequence[Change]) -> list[str]:
    """Return the texts as changed: the same for the same changes. One that is too short comes back as it was.

    Raises
    ------
    FailedPrecondition
        Nlpaug is not installed.
    Unavailable
        It took longer than two minutes.
    InternalError
        It ended without an answer, or was killed.
    """
    job = {
        "texts": [change.text for change in changes],
        "changes": [change.kind for change in changes],
        "seeds": [change.seed for change in changes],
    }
    answer = _answer(json.dumps(job), f"changing {len(changes):,} texts")
    if "missing" in answer:
        raise FailedPrecondition(f'changing texts needs {answer["missing"]}: pip install "sealpool[stream]"')
    texts = answer.get("texts")
    if not isinstance(texts, list) or len(texts) != len(changes):
        raise InternalError("nlpaug gave no text for some of those that it was to change")
    return [str(text) for text in texts]


def _answer(job: str, what: str) -> Mapping[str, object]:
    try:
        done = subprocess.run(  # noqa: S603 - ourselves
            _COMMAND, input=job, capture_output=True, text=True, encoding="utf-8", timeout=_LIMIT_S
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{what} took over {_LIMIT_S:g} s; ask for fewer") from error
    last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1][:300]
    if done.returncode:
        raise InternalError(f"nlpaug ended with {done.returncode}: {last}")
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        raise InternalError(f"nlpaug ended without an answer: {last}") from error
    return answer if isinstance(answer, dict) else {}
