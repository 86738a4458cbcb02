"""Records to JSON and back: canonical on the way out, validated on the way in."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any, TypeVar

from penstock.base.errors import Damaged
from penstock.base.hashing import canonical_json

T = TypeVar("T")


def to_data(record: Any) -> Any:
    """A dataclass instance as plain dicts, lists and scalars."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_data(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, dict):
        return {str(key): to_data(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [to_data(item) for item in record]
    return record


def to_json(record: Any) -> bytes:
    """The canonical JSON of a record; its digest names it."""
    return canonical_json(to_data(record))


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter  # 80 ms that processes which only write need not pay

    return TypeAdapter(kind)


def from_json(kind: type[T], data: bytes | str) -> T:
    """Parse and validate; anything that does not fit is `Damaged`, never a half-built record."""
    from pydantic import ValidationError

    try:
        found: T = _adapter(kind).validate_json(data)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the top"
        raise Damaged(
            f"a stored {kind.__name__} does not parse: {first['msg']} at {where}",
            "Was it written by another version of Penstock, or altered? `penstock doctor` tells.",
            kind=kind.__name__,
        ) from None
    return found
