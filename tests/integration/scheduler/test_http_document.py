"""The OpenAPI document held against the front: whatever it allows or forbids, no request ends in a fault of ours."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.unit.scheduler.world import World, make_spec

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]
STREAMS = "/v1/campaigns/{campaign}/events"
"""Ends only when its reader leaves: tried elsewhere."""

EXAMPLES = 4


@pytest.fixture
def url(make_world: Callable[..., World]) -> str:
    world = make_world(http_listen="127.0.0.1:0")
    world.client.create_campaign(make_spec(name="0"))  # what `pattern` shrinks to, so that some calls find one
    world.client.run_round("0")
    return f"http://{world.scheduler.http_address}"


def test_no_request_that_schemathesis_makes_ends_in_a_fault(url: str) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path != STREAMS:
            try_operation(operation)
            tried += 1
    assert tried >= 13


def try_operation(operation: Any, examples: int = EXAMPLES) -> None:
    for mode in schemathesis.GenerationMode:

        @settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def run(case: Any) -> None:
            case.call_and_validate(checks=CHECKS)

        with suppress(Unsatisfiable):  # nothing about it could be wrong
            run()


def test_the_document_and_its_page_need_no_token_and_no_network(url: str) -> None:
    page = httpx.get(f"{url}/docs").text
    assert "openapi.json" in page
    assert "//" not in page.replace("<!doctype html>", "").split("<script>")[0]
    assert not any(word in page for word in ("src=", "@import", "cdn", "https:"))
