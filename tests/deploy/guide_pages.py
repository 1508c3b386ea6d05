"""The operating guide's pages, and the commands in them: run by tests as they stand, but for places and names."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.deploy.rule_files import ROOT

DOCS = ROOT / "docs"
PAGES = [DOCS / f"{name}.md" for name in ("operating", "sizing", "backup-and-restore", "upgrading", "slos", "erasing")]


def blocks(page: str, section: str, *, only: str = "") -> list[str]:
    """Return the sh blocks of a section, up to the next heading.

    `only` leaves out those for the other database: the ones whose first line is the comment SQLite or PostgreSQL.
    """
    text = (DOCS / f"{page}.md").read_text()
    # Not up to a single #, which begins comments in commands.
    found = re.search(rf"^(##+) {re.escape(section)}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page} has no section {section!r}"
    every = re.findall(r"^```sh\n(.*?)^```$", found[2], re.MULTILINE | re.DOTALL)
    assert every, f"{section!r} of {page} has no commands"
    return [block for block in every if (_database_of(block) or only) == only]


def _database_of(block: str) -> str:
    found = re.match(r"# (SQLite|PostgreSQL)\n", block)
    return "" if found is None else found[1]


class Shell:
    """A shell that runs a page's commands, with what they name put in place of their words."""

    def __init__(self, instead: Mapping[str, str], environment: Mapping[str, str], *, folder: Path = ROOT) -> None:
        self._instead = dict(instead)
        self._folder = folder
        programs = Path(sys.executable).parent
        assert (programs / "sealpool").exists(), f"no sealpool beside {sys.executable}: `make install` puts it there"
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        own = {name: value for name, value in os.environ.items() if not name.startswith("SEALPOOL_")}
        self._environment = {**own, "PYTHONPATH": str(ROOT), "PATH": path, **environment}

    def run(self, *commands: str, answer: str = "") -> str:
        """Run commands in one shell, which stops at the first that fails, and return what they say.

        `answer` is what the operator types.
        """
        script = "\n".join(commands)
        for word, value in self._instead.items():
            script = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", value.replace("\\", r"\\"), script)
        done = subprocess.run(
            ["/bin/sh", "-eu", "-c", script],
            cwd=self._folder,
            env=self._environment,
            input=answer,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout
