"""The API does what its OpenAPI document says, whatever is sent."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from penstock.server import create_app


@pytest.fixture
def api(home: Any) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(home))


schema = schemathesis.pytest.from_fixture("api")


@schema.include(path_regex="^(?!.*/stream$)").parametrize()
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_any_request_is_answered_as_documented(case: Any) -> None:
    case.call_and_validate(base_url="http://127.0.0.1")


def test_every_route_is_documented_with_its_errors(home: Any) -> None:
    document = create_app(home).openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (method, path)
            assert {"200", "4XX", "5XX"} <= set(operation["responses"]), (method, path)
