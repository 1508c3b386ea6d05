"""Everything that sealpool raises on purpose.

SealpoolError
├── InvalidArgument        a field of the request is wrong; nothing was done
├── NotFound               a pool, campaign, item, checkpoint … that does not exist
├── AlreadyExists          a name that is taken
├── FailedPrecondition     right request, wrong moment: the message says what must come first
├── ResourceExhausted      a limit of the service; the message names the setting
├── Unavailable            starting, stopping, or a service behind it is away: try again
├── DeadlineExceeded       the caller's time ran out
├── Cancelled              the caller left
├── Unauthenticated        no token, or one that is not known or has expired
├── PermissionDenied       a token without the role, or for other pools
└── InternalError          a fault of ours; the message has an id to look for in the log

Services raise them, `sealpool.runtime` maps them to gRPC status, and the client raises the same classes again.
"""


class SealpoolError(Exception):
    """The root of the tree. `field` names the part of the request at fault, where there is one.

    Attributes
    ----------
    request_id
        In a client: the id under which the service's log has the call, for a report to those who run it; else "".
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.request_id = ""


class InvalidArgument(SealpoolError):
    """A field of the request is wrong; nothing was done."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}", field=field)


class NotFound(SealpoolError):
    """Something that was named does not exist.

    Parameters
    ----------
    kind
        What it is: "pool", "campaign", "item", "checkpoint" ….
    names
        The names that are unknown. The first five are shown, and how many more there are.
    """

    def __init__(self, kind: str, *names: str, field: str = "") -> None:
        shown = ", ".join(repr(name) for name in names[:5])
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        super().__init__(f"no such {kind}: {shown}{more}", field=field or kind)
        self.kind = kind
        self.names = names


class AlreadyExists(SealpoolError):
    """A name that is taken."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} {name!r} exists already", field=kind)
        self.kind = kind
        self.name = name


class FailedPrecondition(SealpoolError):
    """The request is right, the moment is not."""


class ResourceExhausted(SealpoolError):
    """A limit of the service was reached.

    Parameters
    ----------
    what
        What was asked for, with its number: "upsert of 2,000,000 rows".
    limit
        The limit.
    setting
        The setting that moves it, "" if none does.
    retry_after_s
        Seconds after which the same request may find room; None if trying again does not help.
    """

    def __init__(self, what: str, *, limit: int | float, setting: str, retry_after_s: float | None = None) -> None:
        moved_by = f" (setting {setting})" if setting else ""
        super().__init__(f"{what} is over the limit of {limit:,}{moved_by}", field=setting)
        self.limit = limit
        self.setting = setting
        self.retry_after_s = retry_after_s


class Unavailable(SealpoolError):
    """The service is starting or stopping, or one behind it is away. Trying again is right.

    Parameters
    ----------
    retry_after_s
        Seconds before which trying again is in vain, None where that is not known.
    """

    def __init__(self, message: str, *, field: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, field=field)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(SealpoolError):
    """The caller's time ran out. What was asked for may have happened."""


class Cancelled(SealpoolError):
    """The caller left."""


class Unauthenticated(SealpoolError):
    """No token, or one that is not known or has expired."""


class PermissionDenied(SealpoolError):
    """The token is known and does not allow this: its role is too low, or the pool is not one of its own."""


class InternalError(SealpoolError):
    """A fault of ours. The message has an id under which the service logged it."""
