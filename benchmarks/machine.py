"""What ran where: the command, the commit and the machine of a report."""

import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
_FAISS_BUILDS: Final = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs")


def command_of(module: str, arguments: Sequence[str]) -> str:
    """Return what was typed, with files by their names alone: their folders are nobody else's."""
    return shlex.join(["python", "-m", module, *(Path(word).name if "/" in word else word for word in arguments)])


def commit_of_checkout() -> str:
    """Return the commit, with "+" where tracked files differ from it; "unknown" outside of a checkout."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return "unknown"
    return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def describe_machine(*more: str) -> str:
    """Return processor, cores, memory, system and versions in one line."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return ", ".join(
        [
            f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {memory_gib:.0f} GiB",
            f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {_faiss()}",
            *more,
        ]
    )


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _faiss() -> str:
    for name in _FAISS_BUILDS:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return "no faiss"
