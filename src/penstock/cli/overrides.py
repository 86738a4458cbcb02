"""The command line of `ps.main(fit, Config)`: options of the run, and dotted overrides."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean


@dataclass(frozen=True, slots=True)
class Given:
    """config: with the overrides applied; options: those keyword arguments of `ps.train` said."""

    config: Any
    options: dict[str, Any]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"the command line does not hold: {message}", "See --help.")


def parse(function: Callable[..., Any], config: Any, arguments: Sequence[str]) -> Given:
    """Options and `key=value` pairs in any order. Raises BadInput, which names the nearest key."""
    config = _instance(config)
    parser = _Parser(
        description=(function.__doc__ or "").strip() or None,
        epilog="config:\n" + "\n".join(f"  {k}={v!r}" for k, v in _leaves(config)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="change the config")
    parser.add_argument("--name", default=_default_name(function), help="of the run")
    parser.add_argument("--workers", type=int, default=None, help="ranks; 0: in this process")
    parser.add_argument("--detach", action="store_true", default=None, help="let go of the run")
    parser.add_argument("--fresh", action="store_true", default=None, help="start over")
    parser.add_argument("--seed", type=int, default=None, help="of weights, order and noise")
    parser.add_argument(
        "--checkpoint-every",
        type=lambda text: int(text) if text.isdigit() else text,
        metavar="STEPS|TIME",
        default=None,
        help="a number of steps, or a time such as 30s",
    )
    parser.add_argument(
        "--on-change",
        choices=("continue", "refuse", "fork"),
        default=None,
        help="when code or config changed since an unfinished run",
    )
    said = vars(parser.parse_intermixed_args(list(arguments)))
    for text in said.pop("overrides"):
        path, equals, value = text.partition("=")
        if not equals:
            raise BadInput(
                f'"{text}" is neither an option nor KEY=VALUE', "Write overrides like lr=1e-3."
            )
        config = override(config, path.split("."), value, path)
    return Given(config, {key: value for key, value in said.items() if value is not None})


def override(config: Any, path: Sequence[str], text: str, whole: str) -> Any:
    """The config with one value replaced; what was given is not changed.

    text  converted to the field's type: "1e-3" for a float, "true" for a bool, "[1,2]" for a list
    """
    name, rest = path[0], path[1:]
    values = fields(config)
    if name not in values:
        raise BadInput(f'the config has no "{whole}"', did_you_mean(name, values), key=whole)
    if rest:
        new = override(values[name], rest, text, whole)
    else:
        new = convert(text, _type_of(config, name, values[name]), whole)
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return dataclasses.replace(config, **{name: new})
    if isinstance(config, dict):
        return {**config, name: new}
    return config.model_copy(update={name: new})


def convert(text: str, kind: Any, key: str) -> Any:
    """Text as a value of `kind`: as it stands, else as JSON."""
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(kind)
    try:
        return adapter.validate_python(text)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
    try:
        return adapter.validate_json(text)
    except ValidationError:
        name = getattr(kind, "__name__", str(kind))
        raise BadInput(
            f'{key}="{text}" does not fit: {reason}', f"{key} is of type {name}.", key=key
        ) from None


def fields(config: Any) -> dict[str, Any]:
    """Names and values of one level of a config; BadInput for what is no config."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
    if isinstance(config, dict):
        return config
    if hasattr(config, "model_copy"):
        return {name: getattr(config, name) for name in type(config).model_fields}
    raise BadInput(
        f"a value of type {type(config).__name__} has no fields to override",
        "Use a dataclass, a pydantic model or a dict as the config.",
    )


def _type_of(config: Any, name: str, value: Any) -> Any:
    """The declared type of a field; of a dict, the type of what is there."""
    if isinstance(config, dict):
        return Any if value is None else type(value)
    try:
        return get_type_hints(type(config), include_extras=True)[name]
    except (NameError, KeyError):  # annotations that cannot be resolved, e.g. of a local class
        return Any if value is None else type(value)


def _instance(config: Any) -> Any:
    if not isinstance(config, type):
        return config
    try:
        return config()
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"{config.__name__}() cannot be made without arguments: {error}",
            "Give every field a default; the command line overrides them.",
        ) from None


def _leaves(config: Any, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in fields(config).items():
        nested = dataclasses.is_dataclass(value) or isinstance(value, dict)
        nested = nested or hasattr(value, "model_copy")
        if nested and value:
            found += _leaves(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found


def _default_name(function: Callable[..., Any]) -> str:
    """The script's own name; in a notebook the function's."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(file).stem if file else function.__name__
