"""The steps of a preparation: the user's functions, checked, identified, and as they travel.

| kind     | called with                                  | gives                              |
|----------|----------------------------------------------|------------------------------------|
| map      | a row (dict)                                 | a row                              |
| filter   | a row                                        | whether it stays                   |
| flat_map | a row                                        | any number of rows                 |
| batch    | columns: arrays [B, …], lists for the rest   | columns, rows, or an Arrow table   |

In rows numbers, text, bytes and times are Python values, tensors and lists NumPy arrays,
references `Reference`. A step also gets those of `params` that its function has arguments for, and
depends on these alone: a parameter of the last step does not make the first run again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from penstock.base.errors import BadInput, CannotTravel
from penstock.base.hashing import canonical_json, digest_json
from penstock.jobs.source import CodeIdentity, Entry, identity, locate

Kind = Literal["map", "filter", "flat_map", "batch"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Function = Callable[..., Any]


@dataclass(frozen=True)
class Step:
    """One step of `steps=[…]`.

    keep  whether its output is kept, so that a change of a later step does not run it again;
          default: all but filters. What is kept must be what a dataset can hold
    """

    kind: Kind
    function: Function
    keep: bool | None = None


@dataclass(frozen=True)
class Made:
    """A step that was checked.

    params  those that the function takes
    code    identity of the function
    """

    kind: Kind
    function: Function
    keep: bool
    params: dict[str, Any]
    code: CodeIdentity

    @property
    def name(self) -> str:
        """For people: "map train.resize"."""
        return f"{self.kind} {entry_of(self.function)[0].replace(':', '.')}"

    @property
    def digest(self) -> str:
        """All that its output depends on beside its input."""
        return digest_json([self.kind, self.code.digest, self.params, self.keep])

    def spec(self, live: bool) -> dict[str, Any]:
        """As it travels. live: the function stays in this process. Raises CannotTravel."""
        entry = "" if live else located(self.function).text
        return {"kind": self.kind, "keep": self.keep, "params": self.params, "entry": entry}


def located(function: Function) -> Entry:
    """Where workers find it. Raises CannotTravel, which names the way out."""
    try:
        return locate(function)
    except CannotTravel as error:
        raise CannotTravel(
            error.what, f"{error.fix} Or stay in this process: workers=0.", **error.facts
        ) from None


def entry_of(function: Function) -> tuple[str, Path]:
    """ "module:qualname" and the project's folder; also of what runs in this process only."""
    try:
        found = locate(function)
    except CannotTravel:
        plain = function
        while hasattr(plain, "func"):
            plain = plain.func
        name = getattr(plain, "__qualname__", type(plain).__name__)
        return f"{getattr(plain, '__module__', '?')}:{name}", Path.cwd()
    return found.text, found.root


def make_steps(
    single: Mapping[str, Function | None],
    steps: Sequence[Any] | None,
    params: Mapping[str, Any],
) -> list[Made]:
    """The steps in their order: map, filter, flat_map, batch, or as `steps` has them.

    Raises BadInput: both given, something that is no step, no function.
    """
    given = {kind: function for kind, function in single.items() if function is not None}
    if given and steps is not None:
        raise BadInput(
            f"steps and {', '.join(given)} were given",
            'Put all into steps, in order: steps=[("filter", good), ("map", resize)].',
        )
    if steps is None:
        found = [Step(kind, given[kind], keep=False) for kind in KINDS if kind in given]
    else:
        found = [_step(each) for each in steps]
    return [_made(step, params, last=step is found[-1]) for step in found]


def _step(given: Any) -> Step:
    if isinstance(given, Step):
        return given
    if isinstance(given, tuple) and len(given) == 2 and given[0] in KINDS:
        return Step(*given)
    if callable(given):
        return Step("map", given)
    raise BadInput(
        f"{given!r} is no step",
        f'Give functions, or pairs such as ("filter", good); kinds are {", ".join(KINDS)}.',
    )


def _made(step: Step, params: Mapping[str, Any], last: bool) -> Made:
    if step.kind not in KINDS or not callable(step.function):
        raise BadInput(
            f"{step.kind}={step.function!r} is no function",
            "Pass the function itself, without calling it.",
        )
    keep = step.kind != "filter" if step.keep is None else step.keep
    taken = {name: params[name] for name in names_of(step.function, params)[0]}
    _check_call(step, taken)
    return Made(step.kind, step.function, keep and not last, taken, identity(step.function))


def _check_call(step: Step, params: dict[str, Any]) -> None:
    try:
        inspect.signature(step.function).bind({}, **params)
    except ValueError:  # a builtin without a signature
        return
    except TypeError as error:
        name = entry_of(step.function)[0]
        given = f" and {params}" if params else ""
        raise BadInput(
            f"{name} cannot be called with a row{given}: {error}",
            "A step takes one row (a batch: columns); give its other arguments in params.",
            function=name,
        ) from None


def names_of(function: Function, params: Mapping[str, Any]) -> tuple[list[str], bool]:
    """The parameters that a function takes by name, and whether it takes any."""
    try:
        arguments = inspect.signature(function).parameters.values()
    except ValueError:
        return [], False
    if any(each.kind is each.VAR_KEYWORD for each in arguments):
        return sorted(params), True
    by_name = {each.name for each in arguments if each.kind in _BY_NAME}
    return [name for name in sorted(params) if name in by_name], False


_BY_NAME = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def check_params(params: Mapping[str, Any] | None) -> dict[str, Any]:
    """Raises BadInput for what JSON does not hold."""
    values = dict(params or {})
    try:
        canonical_json(values)
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"the parameters cannot be kept: {error}",
            "Parameters are numbers, text, lists and dicts with text as keys: what JSON holds.",
        ) from None
    return values


def refuse_unused(params: Mapping[str, Any], functions: Sequence[Function]) -> None:
    """Raises BadInput for a parameter that no function takes."""
    used = {name for function in functions for name in names_of(function, params)[0]}
    if unused := sorted(set(params) - used):
        raise BadInput(
            f"no function takes the parameter {', '.join(unused)}",
            "Give the function an argument of that name, or leave the parameter out.",
            params=unused,
        )
