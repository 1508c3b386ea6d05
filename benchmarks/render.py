"""python -m benchmarks.render: put the tables of results/*.json into docs/benchmarks.md, between their markers.

A table stands between <!-- results: NAME --> and <!-- end --> for results/NAME.json; figures are never copied by hand.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.machine import ROOT
from benchmarks.report import COLUMNS, Report, cells
from benchmarks.runner import RESULTS

PAGE: Final = ROOT / "docs" / "benchmarks.md"
_BLOCK: Final = re.compile(r"(<!-- results: (?P<name>[\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
NOT_RUN: Final = "Not run yet.\n"


def markdown(report: Report) -> Iterator[str]:
    """Yield the lines of a report: what ran, and a table a figure."""
    yield f"`{report.command}` at {report.commit}, on {report.machine}."
    for name, rows in report.figures:
        yield from ("", f"**{name}**", "", f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS))
        for row in rows:
            yield f"| {' | '.join(cell.replace('|', '∣') for cell in cells(row))} |"


def rendered(page: str, read: Callable[[str], str | None]) -> str:
    """Return `page` with its blocks filled.

    Parameters
    ----------
    read
        Returns the text of results/NAME.json for a name, None where it was not run.
    """

    def block(match: re.Match[str]) -> str:
        text = read(match["name"])
        content = NOT_RUN if text is None else "\n".join(markdown(Report.from_json(text))) + "\n"
        return f"{match[1]}\n{content}\n{match[3]}"

    return _BLOCK.sub(block, page)


def read_result(name: str) -> str | None:
    """Return the text of a result, None where there is none."""
    path = RESULTS / f"{name}.json"
    return path.read_text() if path.exists() else None


def main(arguments: Sequence[str]) -> int:
    """Return 0, or 1 where --check found the page to differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.render", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, and fail if the page would change")
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args(arguments)
    before = given.page.read_text()
    after = rendered(before, read_result)
    if given.check:
        return int(before != after)
    given.page.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
