"""Which RPC lies at which path, and how a request over HTTP becomes its message."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from scheduler.http.reading import fill, parse_json, scalar
from sealpool.errors import InvalidArgument

MAX_PAGE = 10_000
DEFAULT_PAGE = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """Where an RPC lies.

    Parameters
    ----------
    path
        Fields of the request in braces; a dot leads into a message.
    summary
        One line for OpenAPI.
    pages
        Of an RPC that streams chunks: the field of its answers that is listed page by page. "": one answer.
    """

    http_method: str
    path: str
    rpc: str
    summary: str
    pages: str = ""

    @property
    def path_fields(self) -> dict[str, str]:
        """The fields of the request that the path holds, by the names that `template` has for them."""
        return {name.rpartition(".")[2]: name for name in re.findall(r"{([\w.]+)}", self.path)}

    @property
    def template(self) -> str:
        """The path with the last part of each field's name alone."""
        return re.sub(r"{(?:\w+\.)*(\w+)}", r"{\1}", self.path)


_CAMPAIGN = "/v1/campaigns/{campaign}"
_NAMED = "/v1/campaigns/{name}"
_LINK = f"{_CAMPAIGN}/label-studio"

EVENTS = Route(
    http_method="GET", path=f"{_CAMPAIGN}/events", rpc="WatchCampaign", summary="Events as they happen (server-sent)"
)

ROUTES: Sequence[Route] = [
    Route(http_method=http_method, path=path, rpc=rpc, summary=summary, pages=pages)
    for http_method, path, rpc, summary, pages in (
        ("GET", "/v1/campaigns", "ListCampaigns", "Campaigns, by name", ""),
        ("POST", "/v1/campaigns", "CreateCampaign", "Begin a campaign, or only check that it could", ""),
        ("GET", _NAMED, "GetCampaign", "A campaign as it stands", ""),
        ("PUT", "/v1/campaigns/{spec.name}", "UpdateCampaign", "Change what may change of a campaign", ""),
        ("POST", f"{_NAMED}:pause", "PauseCampaign", "Begin no round and hand out no task", ""),
        ("POST", f"{_NAMED}:resume", "ResumeCampaign", "Go on after a pause", ""),
        ("POST", f"{_NAMED}:archive", "ArchiveCampaign", "End a campaign for good", ""),
        ("POST", f"{_CAMPAIGN}:erase", "Erase", "Replace people's names and items' ids by pseudonyms", ""),
        ("GET", f"{_CAMPAIGN}/rounds", "ListRounds", "Rounds, first to last", ""),
        ("POST", f"{_CAMPAIGN}/rounds:run", "RunRound", "Run one round now", ""),
        ("POST", f"{_CAMPAIGN}/tasks:lease", "LeaseTasks", "Take open tasks, most wanted first", ""),
        ("POST", f"{_CAMPAIGN}/tasks:renew", "RenewLeases", "Hold leased tasks for longer", ""),
        ("POST", f"{_CAMPAIGN}/tasks:release", "ReleaseTasks", "Give leased tasks back", ""),
        ("GET", f"{_CAMPAIGN}/labels", "ListLabels", "Labels in the order they were committed", "labels"),
        ("POST", f"{_CAMPAIGN}/labels", "SubmitLabels", "Hand in annotations, all of them or none", ""),
        ("POST", f"{_CAMPAIGN}/labels:review", "ReviewLabels", "Look for labels that are likely wrong", ""),
        ("GET", f"{_CAMPAIGN}/annotations", "ListAnnotations", "What annotators said", "annotations"),
        ("POST", f"{_CAMPAIGN}/audit:draw", "DrawAudit", "Ask people for labels of items drawn at random", ""),
        ("GET", f"{_CAMPAIGN}/oracle-report", "GetOracleReport", "Who labelled how much, and how well", ""),
        ("GET", f"{_CAMPAIGN}/stream", "GetStream", "How the stream of a campaign stands", ""),
        ("POST", f"{_CAMPAIGN}/stream:consider", "ConsiderBatch", "Decide of items whether the oracle is asked", ""),
        ("POST", f"{_CAMPAIGN}/synthetic:make", "Synthesize", "Make items from labelled ones", ""),
        ("GET", f"{_CAMPAIGN}/synthetic", "ListSynthetic", "Items that were made, and from what", "items"),
        ("GET", _LINK, "GetLabelStudioLink", "The campaign's project in Label Studio", ""),
        ("POST", _LINK, "LinkLabelStudio", "Make a project in Label Studio and keep it in step", ""),
        ("DELETE", _LINK, "UnlinkLabelStudio", "Keep the project in step no longer", ""),
        ("POST", f"{_LINK}:sync", "SyncLabelStudio", "Push and fetch now", ""),
    )
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """An RPC of a servicer at its route."""

    route: Route
    method: MethodDescriptor
    behaviour: Callable[[Any, Any], Any]
    request_type: type[Message]
    query: Mapping[str, FieldDescriptor] = field(default_factory=dict)
    """Fields told in the query; empty where there is a body."""

    @property
    def has_body(self) -> bool:
        """Whether the request's fields come as JSON."""
        return self.route.http_method in ("POST", "PUT")

    def message(self, *, path: Mapping[str, str], query: Sequence[tuple[str, str]], body: bytes, key: str) -> Message:
        """Return the request's message.

        Parameters
        ----------
        key
            Of the header Idempotency-Key; "" if there is none.

        Raises
        ------
        InvalidArgument
            A field is unknown, of a wrong type, given twice with other values, or out of range.
        """
        message = self.request_type()
        if self.has_body and body:
            fill(message, parse_json(body))
        self._fill_from_query(message, query)
        for name, value in path.items():
            _agree(message, self.route.path_fields[name], value, "the path")
        if key and "request_id" in self.method.input_type.fields_by_name:
            _agree(message, "request_id", key, "the header Idempotency-Key")
        return message

    def _fill_from_query(self, message: Message, query: Sequence[tuple[str, str]]) -> None:
        seen: set[str] = set()
        for name, text in query:
            if name not in self.query:
                there = f"there are {', '.join(self.query)}" if self.query else "there is none"
                raise InvalidArgument(name[:60] or "query", f"no such query parameter; {there}")
            if name in seen:
                raise InvalidArgument(name, "is given twice")
            seen.add(name)
            setattr(message, name, scalar(self.query[name], _from_text(self.query[name], text), name))


def operations_of(
    services: Mapping[ServiceDescriptor, tuple[object, type]], routes: Sequence[Route]
) -> Iterator[Operation]:
    """Yield the routes whose RPC is served.

    Parameters
    ----------
    services
        A servicer for each service, and the generated class it derives from: a method that this one still answers is
        not there.
    """
    found = {
        method.name: (method, servicer, base)
        for service, (servicer, base) in services.items()
        for method in service.methods
    }
    for route in routes:
        method, servicer, base = found[route.rpc]
        if getattr(type(servicer), route.rpc) is not getattr(base, route.rpc):
            yield _operation(route, method, getattr(servicer, route.rpc))


def page_size(query: Sequence[tuple[str, str]]) -> tuple[int, list[tuple[str, str]]]:
    """Take the parameter `limit` out of a query: return it, or the default, and the rest."""
    rest = [(name, text) for name, text in query if name != "limit"]
    given = [text for name, text in query if name == "limit"]
    if not given:
        return DEFAULT_PAGE, rest
    text = given[0]
    if len(given) > 1 or not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= MAX_PAGE):
        raise InvalidArgument("limit", f"{text[:60]!r} is not a whole number, 1 to {MAX_PAGE:,}")
    return int(text), rest


def _operation(route: Route, method: MethodDescriptor, behaviour: Callable[[Any, Any], Any]) -> Operation:
    told = route.path_fields.values()
    has_body = route.http_method in ("POST", "PUT")
    rest = {} if has_body else {one.name: one for one in method.input_type.fields if one.name not in told}
    return Operation(
        route=route,
        method=method,
        behaviour=behaviour,
        request_type=GetMessageClass(method.input_type),
        query=rest,
    )


def _agree(message: Message, name: str, value: str, where: str) -> None:
    """Set a text field that something beside the body says; the body may say the same."""
    outer, _, last = name.rpartition(".")
    within = getattr(message, outer) if outer else message
    if getattr(within, last) not in ("", value):
        raise InvalidArgument(name, f"the body and {where} differ")
    scalar(field_of(message.DESCRIPTOR, name), value, name)
    setattr(within, last, value)


def field_of(message: Any, name: str) -> FieldDescriptor:
    """Return a field of a message's descriptor by its name; a dot leads into a message."""
    outer, _, last = name.partition(".")
    found: FieldDescriptor = message.fields_by_name[outer]
    return field_of(found.message_type, last) if last else found


def _from_text(field: FieldDescriptor, text: str) -> Any:
    """Return a text of a query as the JSON value that it stands for; where it stands for none, itself."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"true": True, "false": False}.get(text, text)
    if field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32):
        return int(text) if re.fullmatch(r"-?[0-9]{1,20}", text) else text
    return text
