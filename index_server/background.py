"""The thread that keeps pools fast while others use them."""

import queue
import threading
from typing import TYPE_CHECKING, Final

from sealpool.runtime.logs import Logger

if TYPE_CHECKING:
    from index_server.pool import Pool

_IDLE_S: Final = 3600.0


class UpkeepThread:
    """Runs the upkeep of pools that changed, one pool at a time: so a rebuild never competes with another.

    Threads: `wake` by any. `stop` waits for the step that is under way, which ends early once its pool is closed.
    """

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._changed: queue.SimpleQueue[Pool | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self, pool: "Pool") -> None:
        """Look after `pool` soon."""
        self._changed.put(pool)

    def stop(self) -> None:
        """End the thread."""
        self._changed.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pending: dict[Pool, None] = {}
        wait_s: float | None = None
        while True:
            try:
                pool = self._changed.get(timeout=_IDLE_S if wait_s is None else wait_s)
                if pool is None:
                    return
                pending[pool] = None
                while not self._changed.empty():  # many changes of one pool are one reason to look after it
                    pool = self._changed.get()
                    if pool is None:
                        return
                    pending[pool] = None
            except queue.Empty:
                pass
            waits = {pool: self._look_after(pool) for pool in pending}
            pending = {pool: None for pool, wait in waits.items() if wait is not None}
            wait_s = min((wait for wait in waits.values() if wait is not None), default=None)

    def _look_after(self, pool: "Pool") -> float | None:
        try:
            return pool.upkeep.run()
        except BaseException:  # noqa: BLE001 - a fault in one pool, or a panic of Lance, must not leave all to themselves
            self._log.exception("upkeep failed", pool=pool.spec.name)
            return None
