"""What was asked of an index server and what it acknowledged, written down while it runs; and what must be there after.

The journal has one JSON object a line: `begin` before a step, `ack` (with the number of the call in the step) after
each answer, and `state` with all that can be seen after the step. A process that is killed leaves it up to that moment.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sealpool.v1 import index_pb2_grpc
from tests.support.index_workload import Call, State, Step


@dataclass(slots=True)
class Progress:
    """How far a server came: the last step begun, and which of its calls were acknowledged."""

    begun: int = -1
    acknowledged: set[int] = field(default_factory=set)

    def take(self, entry: dict[str, Any]) -> None:
        """Go on by one line of the journal."""
        if "begin" in entry:
            self.begun, self.acknowledged = entry["begin"], set()
        elif "ack" in entry:
            self.acknowledged.add(entry["call"])

    def take_line(self, line: str) -> None:
        """Go on by one line of the journal as it is written."""
        self.take(json.loads(line))


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a journal; the last may be torn."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def make_step(
    stub: index_pb2_grpc.IndexServiceStub, step: Step, note: "Note", number: int, workers: ThreadPoolExecutor
) -> None:
    """Make the calls of a step, at once if there are several, and note each that was acknowledged."""
    note({"begin": number})

    def make(position: int, call: Call) -> None:
        call.make(stub)
        note({"ack": number, "call": position})

    if len(step.calls) == 1:
        make(0, step.calls[0])
    else:
        list(workers.map(make, range(len(step.calls)), step.calls))


class Note:
    """Writes lines of the journal, and tells them to a second listener."""

    def __init__(self, path: Path, also: Any = None) -> None:
        self._file = path.open("ab", buffering=0)
        self._also = also

    def __call__(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry).encode()
        self._file.write(line + b"\n")
        if self._also is not None and "state" not in entry:
            self._also(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def wrongs(found: State, progress: Progress, states: Sequence[State], steps: Sequence[Step]) -> list[str]:
    """Return what is wrong with what was `found` after a crash: nothing acknowledged may be lost, nothing half there.

    Parameters
    ----------
    states
        What can be seen after each step when nothing goes wrong.
    """
    if progress.begun < 0:
        return differences(found, {})
    step = steps[progress.begun]
    together = {item_id: i for i, other in enumerate(steps) for part in other.parts for item_id in part}
    before: State = states[progress.begun - 1] if progress.begun else {}
    after = states[progress.begun]
    if step.parts:
        return _wrongs_of_parts(found, before, after, step.parts, progress.acknowledged)
    if progress.acknowledged:
        return [f"acknowledged, but: {what}" for what in differences(found, after, together)]
    not_done, done = differences(found, before, together), differences(found, after, together)
    if not_done and done:
        return ["neither as before nor as after:", *not_done[:5], "…", *done[:5]]
    return []


def differences(found: State, wanted: State, together: Mapping[str, int] | None = None) -> list[str]:
    """Return where two states differ, the order of items included.

    Parameters
    ----------
    together
        Items by the step that added them, where they came at once and in an order that nobody knows.
    """
    if found != wanted:
        return list(_differences("", found, wanted))
    names = [name for name in found if _order(found[name], together) != _order(wanted[name], together)]
    return [f"pool {name}: the items are in another order" for name in names]


def _order(pool: State, together: Mapping[str, int] | None) -> list[str | int]:
    return [together.get(item_id, item_id) if together else item_id for item_id in pool.get("items", ())]


def _differences(path: str, found: Any, wanted: Any) -> Iterator[str]:
    if found == wanted:
        return
    if not (isinstance(found, dict) and isinstance(wanted, dict)):
        yield f"{path}: {str(found)[:200]} is not {str(wanted)[:200]}"
        return
    for key in sorted(found.keys() | wanted.keys()):
        if key not in wanted:
            yield f"{path}/{key} should not be there"
        elif key not in found:
            yield f"{path}/{key} is lost"
        else:
            yield from _differences(f"{path}/{key}", found[key], wanted[key])


def _wrongs_of_parts(
    found: State, before: State, after: State, parts: Sequence[frozenset[str]], acknowledged: set[int]
) -> list[str]:
    """Compare after calls that ran at once: each of them happened whole or not at all. All add items to pool "p"."""
    expected = {**after["p"], "items": dict(before["p"]["items"])}
    wrong = []
    seen = found.get("p", {}).get("items", {})
    for number, part in enumerate(parts):
        there = part & seen.keys()
        if there and there != part:
            wrong.append(f"call {number} is half there: {sorted(there)} of {sorted(part)}")
        if number in acknowledged and there != part:
            wrong.append(f"call {number} was acknowledged and {sorted(part - there)} are lost")
        expected["items"].update({item_id: after["p"]["items"][item_id] for item_id in there})
    expected["size"] = len(expected["items"])
    return [*wrong, *_differences("", found, {**after, "p": expected})]
