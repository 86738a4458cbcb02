"""Options of verbs that are misspelt: the nearest is offered, as everywhere else."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean

P = ParamSpec("P")
T = TypeVar("T")


def named_options(verb: Callable[P, T]) -> Callable[P, T]:
    """The verb, which raises BadInput instead of TypeError for an option that it does not have."""
    known = [name for name, each in inspect.signature(verb).parameters.items() if each.kind != 2]

    @functools.wraps(verb)
    def checked(*args: P.args, **options: P.kwargs) -> T:
        for name in options:
            if name not in known:
                raise BadInput(
                    f'ps.{verb.__name__} has no option "{name}"',
                    did_you_mean(name, known),
                    option=name,
                )
        return verb(*args, **options)

    return checked
