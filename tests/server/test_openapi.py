"""The API does what its OpenAPI document says, whatever is sent."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from penstock.server import create_app


def test_any_request_is_answered_as_documented(home: Any) -> None:
    # Not on loopback: the Host header is the generator's to choose.
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(home, loopback=False))
    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path.endswith("/stream"):  # never ends
            continue

        @settings(
            max_examples=10,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            # Names and references have a grammar that the document tells in words only.
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        ask()
        asked += 1
    assert asked >= 20


def test_every_route_is_documented_with_its_errors(home: Any) -> None:
    document = create_app(home).openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (method, path)
            assert {"200", "4XX", "5XX"} <= set(operation["responses"]), (method, path)
