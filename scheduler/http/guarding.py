"""What a page of another site may not make a browser do on this machine."""

from starlette.requests import Request

from sealpool.errors import PermissionDenied
from sealpool.runtime.addresses import is_loopback

_READING = ("GET", "HEAD", "OPTIONS")


class BrowserGuard:
    """Refuses what browsers send for pages that are not ours.

    A page of any site may make its reader's browser send requests to 127.0.0.1. Without tokens nothing else would tell
    them from the reader's own: so changes must come from our own pages or listed origins, and on loopback the name in
    the address must be loopback's, for a name of the site's own may be made to lead there (DNS rebinding).

    Parameters
    ----------
    origins
        Origins whose pages may call, such as "https://labels.example.org"; "*" for all.
    only_loopback
        Whether the name that the caller gave for this machine must be loopback's.
    """

    def __init__(self, origins: tuple[str, ...], *, only_loopback: bool) -> None:
        self._origins = frozenset(origins)
        self._only_loopback = only_loopback

    def check(self, request: Request) -> None:
        """Raise PermissionDenied for a request that a page of another site may have sent."""
        host = request.headers.get("host", "")
        if self._only_loopback and not is_loopback(host if ":" in host.rpartition("]")[2] else f"{host}:80"):
            raise PermissionDenied(f"host: {host[:100]!r} is not this machine's own name", field="host")
        origin = request.headers.get("origin", "")
        if not origin or request.method in _READING or "*" in self._origins or origin in self._origins:
            return
        if origin.partition("://")[2] != host:
            raise PermissionDenied(f"origin: {origin[:100]!r} is not in http_cors_origins", field="origin")
