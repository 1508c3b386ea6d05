"""What training an engine found, kept beside the pool so that a restart searches as before."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from sealpool.durable import full_disk_is_exhaustion, write_durably


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineState:
    """What `Engine.save` gave, for which engine, and of how many items it was trained."""

    engine: str
    trained_on: int
    content: bytes


def write_engine_state(path: Path, state: EngineState) -> None:
    """Keep `state`, with a checksum."""
    digest = hashlib.sha256(state.content).hexdigest()
    header = {"engine": state.engine, "trained_on": state.trained_on, "sha256": digest}
    with full_disk_is_exhaustion("the trained index", path.parent):
        write_durably(path, json.dumps(header).encode() + b"\n" + state.content)


def read_engine_state(path: Path) -> EngineState | None:
    """Return what was kept, or None if there is nothing or its checksum does not hold: then train anew."""
    try:
        header_line, _, content = path.read_bytes().partition(b"\n")
        header = json.loads(header_line)
        if hashlib.sha256(content).hexdigest() != header["sha256"]:
            return None
        return EngineState(engine=header["engine"], trained_on=int(header["trained_on"]), content=content)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
