"""What machines read: JSON that any parser takes."""

from __future__ import annotations

import json
import math
from typing import Any


def dumps(data: Any, indent: int | None = None) -> str:
    """JSON has no NaN and no infinity: such numbers are null. What it does not know is text.

    >>> dumps({"loss": [1.5, float("nan")]})
    '{"loss": [1.5, null]}'
    """
    try:
        return json.dumps(data, ensure_ascii=False, indent=indent, default=str, allow_nan=False)
    except ValueError:  # rare, so that the copy is only made when it is needed
        return json.dumps(_finite(data), ensure_ascii=False, indent=indent, default=str)


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data
