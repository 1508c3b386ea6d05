"""Named points at which a crash test kills the process.

A service calls `reach("index.upsert.before_commit")` where a power cut would hurt most. With
SEALPOOL_FAILPOINT=index.upsert.before_commit in the environment the process kills itself there with SIGKILL, at the
n-th time with SEALPOOL_FAILPOINT=index.upsert.before_commit:n. Without the variable a call costs one look-up.
"""

import os
import signal
from collections import Counter

_VARIABLE = "SEALPOOL_FAILPOINT"
_reached: Counter[str] = Counter()


def reach(name: str) -> None:
    """Kill this process if the environment asks for that here."""
    armed = os.environ.get(_VARIABLE)
    if armed is None:
        return
    point, _, nth = armed.partition(":")
    if point != name:
        return
    _reached[name] += 1
    if _reached[name] == int(nth or 1):
        os.kill(os.getpid(), signal.SIGKILL)
