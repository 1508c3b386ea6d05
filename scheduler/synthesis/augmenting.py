"""Texts with words swapped, left out or misspelt, by nlpaug."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from sealpool.errors import FailedPrecondition, InternalError, Unavailable

CHANGES = 4
_LIMIT_S = 120


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
    """
    job = {
        "texts": [change.text for change in changes],
        "changes": [change.kind for change in changes],
        "seeds": [change.seed for change in changes],
    }
    command = [sys.executable, "-m", "scheduler.synthesis.augment_child"]
    try:
        done = subprocess.run(  # noqa: S603 - ourselves
            command, input=json.dumps(job), capture_output=True, text=True, encoding="utf-8", timeout=_LIMIT_S
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"changing {len(changes):,} texts took over {_LIMIT_S} s; ask for fewer") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise InternalError(f"nlpaug ended with {done.returncode}: {last[:300]}")
    answer = json.loads(done.stdout)
    if "missing" in answer:
        raise FailedPrecondition(f'changing texts needs {answer["missing"]}: pip install "sealpool[stream]"')
    return [str(text) for text in answer["texts"]]
