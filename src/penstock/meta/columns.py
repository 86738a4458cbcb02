"""How values lie in columns: JSON as canonical text, on every database the same."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Dialect, Text
from sqlalchemy.types import TypeDecorator

from penstock.base.errors import BadInput
from penstock.base.hashing import canonical_json
from penstock.records import to_data

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Json(TypeDecorator[Any]):
    """A JSON value as text; None is SQL's NULL.

    A number that JSON has no word for is stored as "NaN", "Infinity" or "-Infinity", which
    `float` understands: a loss that became NaN must not stop a checkpoint from being committed.
    Anything that is not JSON raises BadInput.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else to_text(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


def to_text(value: Any) -> str:
    """Canonical JSON of plain data, dataclasses and tuples. Raises BadInput."""
    data = to_data(value)
    try:
        return canonical_json(data).decode()
    except ValueError:
        return canonical_json(_without_nan(data)).decode()
    except TypeError as error:
        raise BadInput(
            f"a value cannot be stored as JSON: {error}",
            "Use numbers, text, booleans, None, lists and dicts; turn paths and arrays into those.",
        ) from None


def _without_nan(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _without_nan(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_without_nan(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return "NaN" if math.isnan(data) else ("Infinity" if data > 0 else "-Infinity")
    return data


def mentioned(values: Iterable[Any]) -> set[str]:
    """Every digest that stands anywhere in the values."""
    return {digest for value in values for digest in _DIGEST.findall(to_text(value))}
