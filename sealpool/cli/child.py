"""What a supervised service is started through: it stops when its supervisor is gone, however that went.

`python -m sealpool.cli.child SUPERVISOR_PID MODULE [FLAG …]` becomes `python -m MODULE [FLAG …]`. Linux alone knows how
to send a signal at a parent's death; elsewhere a supervisor that is killed with SIGKILL leaves its services behind.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for SIGTERM at the supervisor's death, then become the service."""
    supervisor, *module = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(supervisor):  # it died before the line above
            sys.exit(1)
    os.execv(sys.executable, [sys.executable, "-m", *module])  # noqa: S606 - our own interpreter, no shell


if __name__ == "__main__":
    main()
