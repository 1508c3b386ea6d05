"""Whether there is a front at all: FastAPI and uvicorn are optional, and imported only here and below."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import ServiceDescriptor

from scheduler.settings import SchedulerSettings
from sealpool.runtime.admitted import CallRules
from sealpool.runtime.logs import Logger

if TYPE_CHECKING:
    from scheduler.http.front import HttpFront

_HINT = "pip install 'sealpool[http]'"


def open_front(
    settings: SchedulerSettings,
    services: Mapping[ServiceDescriptor, tuple[object, type]],
    *,
    rules: CallRules,
    is_ready: Callable[[], bool],
    routers: Sequence[Callable[[], Any]],
    log: Logger,
) -> "HttpFront | None":
    """Return a front that holds its address, or None where none is wanted or its packages are missing.

    Parameters
    ----------
    routers
        Each makes a FastAPI router of another room; see `scheduler.http.app.build_app`.

    Raises
    ------
    SystemExit
        `http_listen` was given and FastAPI is missing, or the address cannot be bound: said in one line.
    """
    if not settings.http_listen:
        return None
    try:
        from scheduler.http.front import HttpFront
    except ModuleNotFoundError as error:
        if "http_listen" in settings.model_fields_set:
            raise SystemExit(f"scheduler: http_listen needs {error.name}: {_HINT}") from error
        log.info("no http front", missing=error.name, remedy=_HINT)
        return None
    made = [make() for make in routers]
    return HttpFront(settings, services, rules=rules, is_ready=is_ready, routers=made, log=log)
