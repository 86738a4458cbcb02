"""Captured objects taken apart: the state that another process would need to make them again.

Asked of the object as `pickle` asks it (`__reduce_ex__`), but nothing is pickled and nothing is
made again: a class of Python gives its `__dict__` and `__slots__` (or what its `__getstate__`
says), one of C the arguments that make it. What refuses to be pickled (an open file, a socket, a
lock, a generator) has no state that could be kept.
"""

from __future__ import annotations

import copyreg
import inspect
from typing import Any, NoReturn

from penstock.base.errors import CannotTravel
from penstock.jobs.source.values import text_of

_PROTOCOL = 4  # of the pickle protocols; the first that knows objects with __slots__ and __new__


def state_of(value: Any, label: str) -> dict[str, Any]:
    """Its parts by name: "state" always, the others where it has them.

    label  where it was captured, for the message

    Raises CannotTravel: it has no state that could be kept.
    """
    try:
        reduce = copyreg.dispatch_table.get(type(value))
        found = reduce(value) if reduce else value.__reduce_ex__(_PROTOCOL)
    except Exception as error:  # noqa: BLE001 - each class refuses in its own way
        refuse(value, label, error)
    if isinstance(found, str):  # the name of something that is there once
        return {"state": {"name": found}}
    make, arguments, state, items, pairs = (*found, None, None, None)[:5]
    parts: dict[str, Any] = {"state": {} if state is None else state}
    if make is copyreg.__newobj__:  # type: ignore[attr-defined]
        arguments = arguments[1:]  # the class, which counts anyway
    else:
        parts["made by"] = make
    if arguments:
        parts["arguments"] = arguments
    if items is not None:
        parts["items"] = list(items)
    if pairs is not None:
        parts["pairs"] = [list(pair) for pair in pairs]
    return parts


def refuse(value: Any, label: str, cause: Exception | None = None) -> NoReturn:
    """Raises CannotTravel, which says what was captured."""
    raise CannotTravel(
        f"{_whose(label)} (a {type(value).__name__}), which cannot be kept",
        "Pass it as a parameter, or open it inside the function.",
        captured=label,
        type=f"{type(value).__module__}.{type(value).__qualname__}",
    ) from cause


def owner_of(value: Any) -> Any:
    """The object that a method of a C class is bound to; None for functions and class methods."""
    owner = getattr(value, "__self__", None)
    if not inspect.isroutine(value) or inspect.ismodule(owner) or inspect.isclass(owner):
        return None
    return owner


def key_text(key: Any) -> str:
    """A key as it is called; "" for what has no text that is the same in every process."""
    if isinstance(key, str) or text_of(key) is not None:
        return str(key)
    if inspect.isclass(key) or inspect.isroutine(key):
        return f"{key.__module__}.{key.__qualname__}"
    return ""


def _whose(label: str) -> str:
    """ "inner captures log" of the label "train.make.<locals>.inner captured log"."""
    function, captured, name = label.partition(" captured ")
    if captured:
        return f"{function.rpartition('.')[2]} captures {name.replace(' state', '')}"
    for kind in ("arguments", "object"):
        _, found, rest = label.partition(kind)
        if found:
            steps = rest.replace(" state", "").split(".")
            name = ".".join(step.strip() for step in steps if step and not step.isdigit())
            return f"captures {name}" if name else f"captures one of its {kind}"
    return f"captures {label}"
