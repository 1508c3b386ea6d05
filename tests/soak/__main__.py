"""python -m tests.soak --minutes 30: mixed load on one index server. Ends with a table, and with 1 if it is wrong."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.soak.run import soak


def main() -> int:
    """Run a soak."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = soak(Path(folder), seconds=60 * options.minutes, clients=options.clients, seed=options.seed)
    sys.stdout.write(outcome.table() + "\n")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
