"""What training an engine found, kept beside the pool so that a restart searches as before."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from sealpool.durable import full_disk_is_exhaustion, write_durably


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineState:
    """What `Engine.save` gave, for which engine, and of how many items it was trained.

    With it, how widely the engine has to search to reach the pool's recall, and what was measured then: the share of
    the true `recall_k` neighbours that it found for `recall_queries` queries, when the pool had `measured_on` items.
    """

    engine: str
    trained_on: int
    content: bytes
    breadth: float
    recall: float
    recall_k: int
    recall_queries: int
    measured_on: int


def write_engine_state(path: Path, state: EngineState) -> None:
    """Keep `state`, with a checksum."""
    header = {name: value for name, value in asdict(state).items() if name != "content"}
    header["sha256"] = _digest(header, state.content)
    with full_disk_is_exhaustion("the trained index", path.parent):
        write_durably(path, json.dumps(header).encode() + b"\n" + state.content)


def read_engine_state(path: Path) -> EngineState | None:
    """Return what was kept, or None if there is nothing or its checksum does not hold: then train anew."""
    try:
        header_line, _, content = path.read_bytes().partition(b"\n")
        header = json.loads(header_line)
        if header.pop("sha256") != _digest(header, content):
            return None
        return EngineState(content=content, **header)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _digest(header: dict[str, object], content: bytes) -> str:
    # Of the header too: a flipped bit in `recall` or `breadth` would be believed.
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode() + b"\n" + content).hexdigest()
