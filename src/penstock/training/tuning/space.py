"""What may vary in a search: intervals, whole numbers, choices. Each is plain data.

    import penstock as ps

    space = {
        "lr": ps.space.uniform(1e-5, 1e-2, log=True),
        "model.width": ps.space.integers(16, 256, step=16),
        "optimizer": ps.space.choice(["adamw", "sgd"]),
    }

Paths lead into the config, with dots into nested ones. A bare list is a choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from penstock.base.errors import BadInput


@dataclass(frozen=True, slots=True)
class Uniform:
    """A number between two others, both included; `log`: evenly over orders of magnitude."""

    low: float
    high: float
    log: bool = False

    def at(self, share: float) -> float:
        """The value at a share of 0..1 of the interval.

        >>> round(Uniform(1.0, 100.0, log=True).at(0.5), 6)
        10.0
        """
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            found = math.exp(low + share * (high - low))
        else:
            found = self.low + share * (self.high - self.low)
        return min(max(found, self.low), self.high)

    def share(self, value: Any) -> float:
        """The way back from `at`."""
        low, high, own = self.low, self.high, float(value)
        if self.log:
            low, high, own = math.log(low), math.log(high), math.log(own)
        return (own - low) / (high - low) if high > low else 0.5

    def every(self) -> list[Any] | None:
        """All values; None where nobody can count them."""
        return None if self.high > self.low else [self.low]


@dataclass(frozen=True, slots=True)
class Integers:
    """A whole number from `low` on in steps, `high` included where a step meets it."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def at(self, share: float) -> int:
        """The value at a share of 0..1: each has an equal part of it (of its logarithm).

        >>> [Integers(16, 64, 16).at(share) for share in (0.0, 0.3, 0.6, 1.0)]
        [16, 32, 48, 64]
        """
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            found = round(math.exp(low + share * (high - low)))
        else:
            count = (self.high - self.low) // self.step + 1
            found = self.low + self.step * min(int(share * count), count - 1)
        return min(max(found, self.low), self.high)

    def share(self, value: Any) -> float:
        """The middle of what `at` gives this value for."""
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return (math.log(int(value)) - low) / (high - low)
        count = (self.high - self.low) // self.step + 1
        return ((int(value) - self.low) // self.step + 0.5) / count

    def every(self) -> list[Any] | None:
        return list(range(self.low, self.high + 1, self.step))


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values, none nearer to another."""

    options: tuple[Any, ...]

    def at(self, share: float) -> Any:
        """
        >>> Choice(("a", "b")).at(0.75)
        'b'
        """
        return self.options[min(int(share * len(self.options)), len(self.options) - 1)]

    def share(self, value: Any) -> float:
        return (self.options.index(value) + 0.5) / len(self.options)

    def every(self) -> list[Any] | None:
        return list(self.options)


Dimension = Uniform | Integers | Choice
Space = dict[str, Dimension]


def uniform(low: float, high: float, *, log: bool = False) -> Uniform:
    """A number between two others, both included.

    log  evenly over orders of magnitude: for learning rates and their like

    Raises BadInput.
    """
    if not (_number(low) and _number(high) and low < high):
        raise BadInput(f"uniform({low}, {high}) is no interval", "Give two numbers, low < high.")
    if log and low <= 0:
        raise BadInput(
            f"uniform({low}, {high}, log=True) reaches 0, which has no logarithm",
            "Give a low above 0, or leave out log=True.",
        )
    return Uniform(float(low), float(high), log)


def integers(low: int, high: int, *, step: int = 1, log: bool = False) -> Integers:
    """A whole number from `low` to `high`, both included.

    step  between two neighbours; a `high` that no step meets is left out
    log   evenly over orders of magnitude; goes with step=1 only

    Raises BadInput.
    """
    whole = all(isinstance(each, int) and not isinstance(each, bool) for each in (low, high, step))
    if not whole or low > high or step < 1:
        raise BadInput(
            f"integers({low}, {high}, step={step}) has no value",
            "Give whole numbers, low <= high, and a step of 1 or more.",
        )
    if log and (low < 1 or step != 1):
        raise BadInput(
            f"integers({low}, {high}, step={step}, log=True) is not possible",
            "With log=True, low is 1 or more and the step is 1.",
        )
    return Integers(low, high - (high - low) % step, step, log)


def choice(options: Sequence[Any]) -> Choice:
    """One of some values: numbers, text, booleans, None, lists and dicts of these.

    Raises BadInput.
    """
    found = list(options) if isinstance(options, list | tuple | range) else []
    if not found or any(found.index(each) != at for at, each in enumerate(found)):
        raise BadInput(
            f"choice({options!r}) is no list of different values", 'Write choice(["a", "b"]).'
        )
    return Choice(tuple(found))


def as_data(space: Space) -> dict[str, Any]:
    """A space as JSON-able data, as a study's row keeps it."""
    return {path: {"kind": type(d).__name__.lower(), **asdict(d)} for path, d in space.items()}


def from_data(data: dict[str, Any]) -> Space:
    """The way back from `as_data`."""
    found: Space = {}
    for path, row in data.items():
        facts = {key: value for key, value in row.items() if key != "kind"}
        match row["kind"]:
            case "uniform":
                found[path] = Uniform(**facts)
            case "integers":
                found[path] = Integers(**facts)
            case _:
                found[path] = Choice(tuple(facts["options"]))
    return found


def _number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(float(value))
    )
