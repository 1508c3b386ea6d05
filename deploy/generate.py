"""Write what is generated below deploy/: dashboards, and rules as Kubernetes objects; or compare (--check)."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.grafana import boards
from deploy.prometheus import wrapped

ROOT = Path(__file__).parent


def main() -> int:
    """Write the files, or with --check say which are stale. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is not what it would be")
    pages = {**boards.pages(), **wrapped.pages()}
    stale = _stale(pages)
    if parser.parse_args().check:
        for name in stale:
            sys.stderr.write(f"deploy/{name} is stale: run `make deploy-files`\n")
        return 1 if stale else 0
    for name in stale:
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pages[name], encoding="utf-8")
    return 0


def _stale(pages: Mapping[str, str]) -> list[str]:
    def there(name: str) -> str | None:
        path = ROOT / name
        return path.read_text(encoding="utf-8") if path.exists() else None

    return [name for name, text in pages.items() if there(name) != text]


if __name__ == "__main__":
    sys.exit(main())
