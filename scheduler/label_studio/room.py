"""The parts of this room put together."""

import secrets
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from scheduler.label_studio.calling import LabelStudioCalls
from scheduler.label_studio.client import LabelStudioClient
from scheduler.label_studio.loop import SyncLoop
from scheduler.label_studio.pushing import Pusher
from scheduler.label_studio.receiving import Receiver
from scheduler.label_studio.servers import SETTING, read_servers
from scheduler.label_studio.service import LabelStudioService
from scheduler.label_studio.servicer import LabelStudioServicer
from scheduler.label_studio.syncing import Syncer
from scheduler.ports import Index, Learner
from scheduler.settings import SchedulerSettings
from scheduler.storage.store import Store
from sealpool.errors import FailedPrecondition
from sealpool.runtime.logs import Logger

if TYPE_CHECKING:
    from fastapi import APIRouter

_HELD_FOR_SYNCS = 10
_LEAST_HELD_S = 300.0


class LabelStudioRoom:
    """Everything about Label Studio that lives as long as the scheduler.

    Raises
    ------
    InvalidArgument
        The file of servers is wrong.
    """

    def __init__(
        self,
        settings: SchedulerSettings,
        *,
        store: Store,
        index: Index,
        learner: Learner,
        on_labels: Callable[[str], None],
        is_leading: Callable[[], bool],
        log: Logger,
    ) -> None:
        self._servers = read_servers(settings.label_studio_servers)
        self._clients: dict[str, LabelStudioClient] = {}
        self._lock = threading.Lock()
        self._max_body_bytes = settings.max_message_bytes
        every_s = settings.label_studio_sync_every_s
        receiver = Receiver(store=store, on_labels=on_labels, log=log)
        pusher = Pusher(
            store=store, index=index, learner=learner, held_s=max(_LEAST_HELD_S, _HELD_FOR_SYNCS * every_s), log=log
        )
        syncer = Syncer(store=store, receiver=receiver, pusher=pusher, client_of=self._client_of)
        self.servicer = LabelStudioServicer(
            LabelStudioService(
                store=store,
                servers=self._servers,
                client_of=self._client_of,
                syncer=syncer,
                new_secret=lambda: secrets.token_urlsafe(32),
                log=log,
            )
        )
        self.calls = LabelStudioCalls(
            store=store, learner=learner, receiver=receiver, servers=self._servers, client_of=self._client_of
        )
        self.loop = SyncLoop(store=store, syncer=syncer, is_leading=is_leading, every_s=every_s, log=log)

    def router(self) -> "APIRouter":
        """Return the paths that Label Studio calls, for the HTTP front."""
        from scheduler.label_studio.routes import router

        return router(self.calls, max_body_bytes=self._max_body_bytes)

    def close(self) -> None:
        """Wait for the thread, for one request of it at most, and close the connections."""
        with self._lock:
            clients = list(self._clients.values())
        for client in clients:
            client.stop()
        self.loop.close()
        for client in clients:
            client.close()

    def _client_of(self, server: str) -> LabelStudioClient:
        with self._lock:
            if server not in self._clients:
                if server not in self._servers:
                    raise FailedPrecondition(f"server {server!r} is no longer among {SETTING}", field="server")
                self._clients[server] = LabelStudioClient(self._servers[server])
            return self._clients[server]
