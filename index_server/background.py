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
        while self._gather(pending, wait_s):
            wait_s = self._look_after_all(pending)

    def _gather(self, pending: "dict[Pool, None]", wait_s: float | None) -> bool:
        """Wait for pools that changed, or for `wait_s`; False when told to stop.

        A function of its own, so that no variable keeps a pool that was deleted, and its memory, while this one waits.
        """
        try:
            pool = self._changed.get(timeout=_IDLE_S if wait_s is None else wait_s)
            while pool is not None:
                pending[pool] = None
                if self._changed.empty():  # many changes of one pool are one reason to look after it
                    return True
                pool = self._changed.get()
        except queue.Empty:
            return True
        return False

    def _look_after_all(self, pending: "dict[Pool, None]") -> float | None:
        """Look after `pending` pools, leave those to come to again, and return the seconds to the first of them."""
        waits = {pool: self._look_after(pool) for pool in pending}
        asking = {pool: wait_s for pool, wait_s in waits.items() if wait_s is not None}
        pending.clear()
        pending.update(dict.fromkeys(asking))
        return min(asking.values(), default=None)

    def _look_after(self, pool: "Pool") -> float | None:
        try:
            return pool.upkeep.run()
        except BaseException:  # noqa: BLE001 - a fault in one pool, or a panic of Lance, must not leave all to themselves
            self._log.exception("upkeep failed", pool=pool.spec.name)
            return None
