"""Give memory back while nobody asks for anything."""

import threading
from collections.abc import Callable


class Every:
    """Calls a function every so many seconds, in a thread of its own, between `start` and `stop`."""

    def __init__(self, interval_s: float, call: Callable[[], None], *, name: str) -> None:
        self._interval_s = interval_s
        self._call = call
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the first call comes after one interval."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the call that is under way."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self._call()
