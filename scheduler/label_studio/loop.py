"""Every linked campaign kept in step, on the scheduler that leads."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from scheduler.label_studio.syncing import Syncer
from scheduler.storage import label_studio as storage
from scheduler.storage.store import Store
from sealpool.errors import SealpoolError, Unavailable
from sealpool.runtime.logs import Logger
from sealpool.v1 import label_studio_pb2

MAX_PAUSE_S = 300.0


@dataclass(kw_only=True, slots=True)
class _Pause:
    until: float = 0.0
    length_s: float = 0.0


class SyncLoop:
    """A thread of its own: a Label Studio that is slow or away holds up nothing but other campaigns' projects.

    Parameters
    ----------
    is_leading
        Asked before each campaign: only the scheduler that leads syncs by itself.
    every_s
        Pause between two goes. A server that does not answer is left alone for twice as long each time, up to five
        minutes.
    """

    def __init__(
        self, *, store: Store, syncer: Syncer, is_leading: Callable[[], bool], every_s: float, log: Logger
    ) -> None:
        self._store = store
        self._syncer = syncer
        self._is_leading = is_leading
        self._every_s = every_s
        self._log = log
        self._pauses: dict[str, _Pause] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="label-studio", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing new; what is under way is not waited for."""
        self._stopping.set()

    def close(self) -> None:
        """Stop, and wait for the thread to end."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def _linked(self) -> list[tuple[str, str]]:
        """Return linked campaigns and their servers; none where another scheduler leads."""
        if not self._is_leading():
            return []
        with self._store.reading() as session:
            return [
                (name, label_studio_pb2.LabelStudioLink.FromString(row.link).server)
                for name, row in storage.links(session)
            ]

    def _sync(self, name: str, server: str) -> None:
        pause = self._pauses.setdefault(server, _Pause())
        if self._stopping.is_set() or not self._is_leading() or time.monotonic() < pause.until:
            return
        try:
            self._syncer.sync(name)
        except Unavailable as error:
            pause.length_s = min(max(2 * pause.length_s, self._every_s), MAX_PAUSE_S)
            pause.until = time.monotonic() + pause.length_s
            self._log.warning("Label Studio put off", campaign=name, server=server, error=error.message)
        except SealpoolError as error:
            self._log.warning("campaign not in step with Label Studio", campaign=name, error=error.message)
        else:
            pause.length_s = 0.0

    def _run(self) -> None:
        with ThreadPoolExecutor(1, thread_name_prefix="label-studio") as executor:
            while not self._stopping.wait(self._every_s):
                linked = executor.submit(self._linked)
                self._report(linked.exception())
                # Each on its own: a fault that one campaign meets keeps no other out of step.
                for name, server in [] if linked.exception() else linked.result():
                    self._report(executor.submit(self._sync, name, server).exception())

    def _report(self, fault: BaseException | None) -> None:
        if isinstance(fault, SealpoolError):
            self._log.warning("Label Studio put off", error=fault.message)
        elif fault is not None:
            self._log.error("Label Studio met a fault", exc_info=fault)
