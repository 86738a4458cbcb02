"""`--sweep lr=1e-4,1e-3 width=16:256:16`: what may vary, as it is written on a command line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from penstock.base.errors import BadInput
from penstock.training.overriding import convert, kind_of
from penstock.training.tuning import space
from penstock.training.tuning.space import Dimension, Space

_OPEN, _CLOSE = "[{(", "]})"


def axes(config: Any, texts: Sequence[str]) -> Space:
    """KEY=A,B,C (these values), or KEY=LOW:HIGH, KEY=LOW:HIGH:log, KEY=LOW:HIGH:STEP (whole
    numbers). Values are converted to the type of the field; commas within brackets and quotes
    belong to a value.

    Raises BadInput, which names the nearest key.
    """
    found: Space = {}
    for text in texts:
        path, equals, values = text.partition("=")
        if not equals or not values:
            raise BadInput(
                f'"{text}" says nothing that varies',
                "Write --sweep lr=1e-4,1e-3 width=32,64, or lr=1e-4:1e-2:log.",
            )
        kind = kind_of(config, path)
        parts = _split(values, ":")
        if len(parts) in (2, 3) and all(_is_number(each) for each in parts[:2]):
            found[path] = _range(path, parts, kind)
        else:
            found[path] = space.choice([convert(each, kind, path) for each in _split(values, ",")])
    return found


def is_grid(found: Space) -> bool:
    """Whether all values are written down."""
    return all(isinstance(dimension, space.Choice) for dimension in found.values())


def _range(path: str, parts: Sequence[str], kind: Any) -> Dimension:
    log = len(parts) == 3 and parts[2] == "log"
    step = parts[2] if len(parts) == 3 and not log else None
    if kind is int:
        low, high = (convert(each, int, path) for each in parts[:2])
        return space.integers(low, high, step=convert(step or "1", int, path), log=log)
    if step is not None:
        raise BadInput(
            f"{path}={':'.join(parts)} has a step, and {path} is no whole number",
            f"Write {path}={parts[0]}:{parts[1]}, with :log or without, or the values: 0.1,0.2.",
            key=path,
        )
    return space.uniform(float(parts[0]), float(parts[1]), log=log)


def _split(text: str, at: str) -> list[str]:
    """Parts between a character, those within brackets and quotes left whole.

    >>> _split('[1,2],"a,b",c', ",")
    ['[1,2]', '"a,b"', 'c']
    """
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in _OPEN:
            depth += 1
        elif letter in _CLOSE:
            depth -= 1
        elif letter == at and depth == 0:
            parts.append("")
            continue
        parts[-1] += letter
    return parts


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
