"""What deploy/Containerfile says, stage by stage."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "deploy" / "Containerfile"

MODULES = {
    "index-server": "index_server",
    "index-server-gpu": "index_server",
    "learner": "learner",
    "learner-gpu": "learner",
    "scheduler": "scheduler",
}
"""Each target, and the module that it runs."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage: its instructions as (keyword, rest of the line), continued lines joined."""

    name: str
    base: str
    instructions: Sequence[tuple[str, str]]

    def all(self, keyword: str) -> list[str]:
        return [rest for word, rest in self.instructions if word == keyword]


@dataclass(frozen=True, kw_only=True)
class Image:
    """What an engine would know of the image of a target."""

    environment: Mapping[str, str]
    labels: Mapping[str, str]
    entry_point: Sequence[str]
    user: str
    folder: str
    ports: frozenset[int]
    stages: Sequence[Stage]


def instructions() -> list[tuple[str, str]]:
    """Return all instructions in their order."""
    lines = [line for line in CONTAINERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    parts = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(keyword.upper(), rest) for keyword, rest in parts]


def arguments() -> dict[str, str]:
    """Return the defaults of the build arguments."""
    given = (rest.partition("=") for keyword, rest in instructions() if keyword == "ARG")
    return {name: value.strip('"') for name, equals, value in given if equals}


def stages() -> dict[str, Stage]:
    """Return the stages by their names."""
    found: dict[str, Stage] = {}
    body: list[tuple[str, str]] = []
    for keyword, rest in instructions():
        if keyword == "FROM":
            base, _, name = rest.split()
            body = []
            found[name] = Stage(name=name, base=base, instructions=body)
        else:
            body.append((keyword, rest))
    return found


def image(target: str) -> Image:
    """Return what the image of a target has, its base images' own aside."""
    known, chain, name = stages(), [], target
    while name in known:
        chain.insert(0, known[name])
        name = known[name].base
    last = {keyword: rest for stage in chain for keyword, rest in stage.instructions}
    return Image(
        environment=_pairs(chain, "ENV"),
        labels=_pairs(chain, "LABEL"),
        entry_point=json.loads(last["ENTRYPOINT"]),
        user=last.get("USER", "root"),
        folder=last.get("WORKDIR", "/"),
        ports=frozenset(int(port) for stage in chain for rest in stage.all("EXPOSE") for port in rest.split()),
        stages=chain,
    )


def _pairs(chain: Sequence[Stage], keyword: str) -> dict[str, str]:
    words = (word for stage in chain for rest in stage.all(keyword) for word in shlex.split(rest))
    return {name: value for name, _, value in (word.partition("=") for word in words)}
