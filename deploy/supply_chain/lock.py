"""Write deploy/locks/<image>.txt: every package of an image, with its version and the hashes of its files.

The versions are those of constraints.txt; what it does not name, such as CUDA's libraries, is the newest that fits.
`make lock` runs this with uv on the path. CPU builds of torch lie outside PyPI: TORCH_CPU says where, as uv options
(`--find-links FOLDER`, or `--index URL`).
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
LOCKS: Final = ROOT / "deploy" / "locks"
CONSTRAINTS: Final = ROOT / "constraints.txt"

PYTHON_VERSION: Final = "3.11.9"
"""Of the images; a lock has what this version needs."""
PLATFORM: Final = "x86_64-manylinux_2_28"

_EVERYWHERE: Final = ("cli", "tracing")
EXTRAS: Final[Mapping[str, Sequence[str]]] = {
    "index-server": ("index", "milvus", *_EVERYWHERE),
    "index-server-gpu": ("index-cuvs", "milvus", *_EVERYWHERE),
    "learner": ("learner", "vision", "lora", *_EVERYWHERE),
    "learner-gpu": ("learner", "vision", "lora", *_EVERYWHERE),
    "scheduler": ("scheduler", "postgresql", "http", "llm", "label-studio", "agreement", "stream", *_EVERYWHERE),
}
"""What of pyproject.toml goes into each image."""

_CPU_TORCH: Final = frozenset({"learner"})

_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s\\;]+)", re.MULTILINE)


def pins(text: str) -> dict[str, str]:
    """Return the versions that a lock, or constraints.txt, pins: normal name → version."""
    return {normal_name(name): version for name, version in _PIN.findall(text)}


def normal_name(name: str) -> str:
    """Return a package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Write all locks."""
    LOCKS.mkdir(exist_ok=True)
    for image, extras in EXTRAS.items():
        _compile(image, extras)


def _compile(image: str, extras: Sequence[str]) -> None:
    text = CONSTRAINTS.read_text(encoding="utf-8")
    options: list[str] = []
    if image in _CPU_TORCH:
        text = re.sub(r"^(torch==.*)$", r"\1+cpu", text, flags=re.MULTILINE)
        options = shlex.split(os.environ.get("TORCH_CPU", ""))
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as constraints:
        constraints.write(text)
        constraints.flush()
        command = ["uv", "pip", "compile", "--quiet", "pyproject.toml", "--constraint", constraints.name]
        command += [f"--extra={extra}" for extra in extras]
        command += ["--generate-hashes", "--python-version", PYTHON_VERSION, "--python-platform", PLATFORM]
        command += ["--upgrade", "--no-header", "--no-annotate", *options, "--output-file", str(LOCKS / f"{image}.txt")]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)  # noqa: S603 - uv, and words of ours
    sys.stderr.write(f"deploy/locks/{image}.txt\n")


if __name__ == "__main__":
    main()
