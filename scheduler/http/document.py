"""The OpenAPI document, from the operations and the descriptors of their messages."""

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from scheduler.http.events import MEDIA_TYPE as EVENT_STREAM
from scheduler.http.operations import DEFAULT_PAGE, EVENTS, MAX_PAGE, Operation, field_of
from scheduler.http.problems import HTTP_STATUS_OF
from scheduler.http.problems import MEDIA_TYPE as PROBLEM
from scheduler.http.schemas import Schema, Schemas

_NAME = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$"}

_REFUSALS: Mapping[int, str] = {
    400: "A field is wrong; nothing was done",
    401: "No token, or one that is not known or has expired",
    403: "The token's role is too low, the pool is none of its own, or a page of another site asked",
    404: "No such campaign, pool or item",
    409: "The name is taken, or the moment is wrong: the message says what must come first",
    429: "A limit of the service; `retry_after_seconds` where coming again helps",
    500: "A fault of the service; the message has an id to look for in its log",
    503: "Starting, stopping, or a service behind it is away: try again",
    504: "The caller's time ran out",
}
_OF_BODIES: Mapping[int, str] = {
    408: "The body did not come in time",
    413: "The body is larger than max_message_bytes",
    415: "The body is not application/json",
}

_ABOUT = (
    "Active learning over pools too large to scan. Bodies are the JSON mapping of the protobuf messages, under their "
    "own names. 64-bit numbers are strings in answers, and strings or numbers in requests. A field that has no value "
    "is left out; null is refused. Calls that change something take a request id, in the body or as Idempotency-Key: "
    "repeated with it, they change nothing and answer the same."
)


def document(operations: Iterable[Operation], *, asks_for_tokens: bool) -> Schema:
    """Return the OpenAPI 3.1 document of these operations."""
    schemas = Schemas()
    paths: dict[str, dict[str, Schema]] = {"/healthz": _probe("alive"), "/readyz": _probe("ready")}
    for operation in operations:
        lies_at = paths.setdefault(operation.route.template, {})
        lies_at[operation.route.http_method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "sealpool scheduler", "version": _version(), "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": {**schemas.components, "Problem": _problem()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}] if asks_for_tokens else [{}, {"token": []}],
    }


def _operation(operation: Operation, schemas: Schemas) -> Schema:
    described: Schema = {
        "operationId": operation.route.rpc,
        "summary": operation.route.summary,
        "tags": [operation.method.containing_service.name],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation, schemas), *_headers(operation)],
        "responses": {**_success(operation, schemas), **_refusals(operation)},
    }
    if operation.has_body:
        without = [name for name in operation.route.path_fields.values() if "." not in name]
        schema = schemas.of(operation.method.input_type, without=without)
        described["requestBody"] = {"required": False, "content": {"application/json": {"schema": schema}}}
    return described


def _path_parameters(operation: Operation) -> list[Schema]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _NAME, "description": f"`{full}` of the request."}
        for name, full in operation.route.path_fields.items()
    ]


def _query_parameters(operation: Operation, schemas: Schemas) -> list[Schema]:
    found = [_query(name, schemas.field(field)) for name, field in operation.query.items()]
    if operation.route.pages and "after_sequence" in operation.query:
        limit = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE}
        found.append(_query("limit", limit))
    return found


def _query(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _headers(operation: Operation) -> list[Schema]:
    if operation.route is EVENTS:
        number = schemas_of_number(field_of(operation.method.input_type, "after_sequence"))
        return [{"name": "Last-Event-ID", "in": "header", "required": False, "schema": number}]
    if not operation.has_body or "request_id" not in operation.method.input_type.fields_by_name:
        return []
    key = {"type": "string", "maxLength": 128}
    return [{"name": "Idempotency-Key", "in": "header", "required": False, "schema": key}]


def schemas_of_number(field: FieldDescriptor) -> Schema:
    """Return the schema of a field that is no message."""
    return Schemas().field(field)


def _success(operation: Operation, schemas: Schemas) -> Schema:
    answer = schemas.of(operation.method.output_type)
    if operation.route is EVENTS:
        content = {EVENT_STREAM: {"schema": {"type": "string"}}}
        about = "One event after another; the data of each is a WatchCampaignResponse, its id the sequence"
        return {
            "200": {"description": about, "content": content},
            "204": {"description": "No event, and none to come: the campaign is archived"},
        }
    if operation.route.pages:
        rows = schemas.field(field_of(operation.method.output_type, operation.route.pages))
        answer = {
            "type": "object",
            "properties": {
                operation.route.pages: rows,
                "next_after_sequence": {
                    "type": "string",
                    "description": "Give it as after_sequence for the next page; absent on the last.",
                },
            },
            "required": [operation.route.pages],
            "additionalProperties": False,
        }
    return {"200": {"description": operation.route.summary, "content": {"application/json": {"schema": answer}}}}


def _refusals(operation: Operation) -> Schema:
    told = {**_REFUSALS, **(_OF_BODIES if operation.has_body else {})}
    content = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {str(status): {"description": about, "content": content} for status, about in sorted(told.items())}


def _problem() -> Schema:
    kinds = sorted(cls.__name__ for cls in HTTP_STATUS_OF)
    return {
        "type": "object",
        "properties": {
            "error": {"type": "string", "enum": kinds},
            "status": {"type": "integer"},
            "message": {"type": "string"},
            "field": {"type": "string", "description": "The part of the request at fault, or the setting."},
            "retry_after_seconds": {"type": "number"},
        },
        "required": ["error", "status", "message"],
        "additionalProperties": False,
    }


def _probe(what: str) -> dict[str, Any]:
    responses = {"200": {"description": f"The service is {what}"}}
    if what == "ready":
        responses["503"] = {"description": "It is starting or stopping"}
    return {"get": {"operationId": what, "summary": f"Whether it is {what}", "security": [{}], "responses": responses}}


def _version() -> str:
    try:
        return version("sealpool")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
