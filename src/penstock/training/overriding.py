"""`KEY=VALUE`: values of a config replaced by what was written, converted to the fields' types."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_type_hints

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean
from penstock.training import dictconfig


def applied(config: Any, overrides: Iterable[str]) -> Any:
    """The config with all overrides; dots go into nested ones. What was given is not changed.

    Raises BadInput, which names the nearest key.
    """
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals:
            raise BadInput(
                f'"{text}" is neither an option nor KEY=VALUE', "Write overrides like lr=1e-3."
            )
        config = override(config, path.split("."), value, path)
    return config


def override(config: Any, path: Sequence[str], text: str, whole: str) -> Any:
    """The config with one value replaced; what was given is not changed.

    text  converted to the field's type: "1e-3" for a float, "true" for a bool, "[1,2]" for a list
    """
    return _replaced(config, path, whole, lambda kind: convert(text, kind, whole))


def put(config: Any, path: str, value: Any) -> Any:
    """The config with a value at a dotted path, checked against the field's type; what was given
    is not changed. Raises BadInput, which names the nearest key."""
    from pydantic import TypeAdapter, ValidationError

    def checked(kind: Any) -> Any:
        try:
            return TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            raise BadInput(
                f"{path}={value!r} does not fit: {error.errors()[0]['msg']}",
                f"{path} is of type {getattr(kind, '__name__', str(kind))}.",
                key=path,
            ) from None

    return _replaced(config, path.split("."), path, checked)


def _replaced(config: Any, path: Sequence[str], whole: str, value_for: Callable[[Any], Any]) -> Any:
    """value_for  gives the new value for the declared type of the field"""
    name, rest = path[0], path[1:]
    values = fields(config)
    if name not in values:
        raise BadInput(f'the config has no "{whole}"', did_you_mean(name, values), key=whole)
    if rest:
        new = _replaced(values[name], rest, whole, value_for)
    else:
        new = value_for(_type_of(config, name, values[name]))
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return dataclasses.replace(config, **{name: new})
    if isinstance(config, dict):
        return {**config, name: new}
    if dictconfig.is_dict(config):
        return dictconfig.replaced(config, name, new, whole)
    return config.model_copy(update={name: new})


def kind_of(config: Any, path: str) -> Any:
    """The declared type of the field at a dotted path. Raises BadInput, which names the nearest."""
    kind: Any = None
    for name in path.split("."):
        values = fields(config)
        if name not in values:
            raise BadInput(f'the config has no "{path}"', did_you_mean(name, values), key=path)
        kind, config = _type_of(config, name, values[name]), values[name]
    return kind


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
    if dictconfig.is_dict(config):
        return dictconfig.fields(config)
    if hasattr(config, "model_copy"):
        return {name: getattr(config, name) for name in type(config).model_fields}
    raise BadInput(
        f"a value of type {type(config).__name__} has no fields to override",
        "Use a dataclass, a pydantic model, a dict or a DictConfig as the config.",
    )


def _type_of(config: Any, name: str, value: Any) -> Any:
    """The declared type of a field; of a dict, the type of what is there."""
    if dictconfig.is_one(value):
        return list if type(value).__name__ == "ListConfig" else dict
    if isinstance(config, dict) or dictconfig.is_dict(config):
        return Any if value is None else type(value)
    try:
        return get_type_hints(type(config), include_extras=True)[name]
    except (NameError, KeyError):  # annotations that cannot be resolved, e.g. of a local class
        return Any if value is None else type(value)
