"""An index server that is put through drawn steps, in a process of its own: to be recorded, or killed.

python index_child.py DATA_DIR JOURNAL SEED STEPS [states] [counts=FILE]
With `states` all that can be seen is noted after each step; with `counts` how often each failpoint was passed.
"""

import ctypes
import json
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sealpool import failpoint


def count_failpoints() -> Counter[str]:
    """Count what passes through `reach`. To be called before any module takes that name."""
    passed: Counter[str] = Counter()
    reach = failpoint.reach

    def counting(name: str) -> None:
        passed[name] += 1
        reach(name)

    failpoint.reach = counting
    return passed


def recorder() -> Callable[[bytes], None] | None:
    """Return how to put a mark among the records, if this process is recorded."""
    mark = getattr(ctypes.CDLL(None), "sealpool_record_mark", None)
    if mark is None:
        return None
    mark.argtypes, mark.restype = [ctypes.c_char_p], None
    return mark  # type: ignore[no-any-return]


def main(arguments: list[str]) -> None:
    """Run the steps."""
    data_dir, journal, seed, count, *options = arguments
    passed = count_failpoints()
    from tests.support.index_at_hand import index_server, snapshots_beside, stub_of
    from tests.support.index_history import Note, make_step
    from tests.support.index_workload import Workload, read_state

    note = Note(Path(journal), recorder())
    with index_server(Path(data_dir)) as channel, ThreadPoolExecutor(4) as workers:
        for number, step in enumerate(Workload(int(seed), snapshots_beside(Path(data_dir))).steps(int(count))):
            make_step(stub_of(channel), step, note, number, workers)
            if "states" in options:
                note({"state": read_state(stub_of(channel))})
    for option in options:
        if option.startswith("counts="):
            Path(option.removeprefix("counts=")).write_text(json.dumps(passed))
    note.close()


if __name__ == "__main__":
    main(sys.argv[1:])
