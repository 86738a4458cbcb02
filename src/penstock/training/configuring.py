"""A configuration on its way to other processes: JSON and the name of its type, never pickle."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from penstock.base.errors import BadInput, CannotTravel
from penstock.jobs.source import load, locate
from penstock.training import dictconfig


def pack(config: Any, here: bool = False) -> dict[str, Any]:
    """{"type": "module:Class" | None, "value": JSON-able}. Raises CannotTravel with the path.

    here  it stays in this process, as in `locate`
    """
    if config is None or isinstance(config, dict):
        return {"type": None, "value": values(config)}
    if isinstance(config, type):
        raise BadInput(
            f"the config is the class {config.__name__}, not an instance",
            f"Pass {config.__name__}().",
        )
    value = values(config)
    if dictconfig.is_one(config):
        return {"type": dictconfig.TYPE, "value": value}
    return {"type": locate(type(config), here).text, "value": value}


def values(config: Any) -> Any:
    """A configuration's values as JSON-able data. Raises CannotTravel with the path."""
    if config is None or isinstance(config, dict):
        return _plain(config, "config")
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {
            field.name: _plain(getattr(config, field.name), f"config.{field.name}")
            for field in dataclasses.fields(config)
        }
    if dictconfig.is_dict(config):
        return _plain(config, "config")
    if hasattr(config, "model_dump"):
        return config.model_dump(mode="json")
    raise CannotTravel(
        f"a config of type {type(config).__name__} cannot be kept",
        "Use a dataclass, a pydantic model, a dict or a DictConfig of OmegaConf.",
    )


def _plain(value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name), f"{path}.{field.name}")
            for field in dataclasses.fields(value)
        }
    if dictconfig.is_one(value):
        value = dictconfig.plain(value, path)
    if isinstance(value, dict):
        return {str(key): _plain(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{at}]") for at, item in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise CannotTravel(f"{path} is {value}, which JSON has no form for", "Use a finite number.")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise CannotTravel(
        f"{path} is a {type(value).__name__}, which cannot be kept with the run",
        "Configure by numbers, text, lists, dicts and dataclasses; build objects in the function.",
        path=path,
    )


def unpack(packed: dict[str, Any]) -> Any:
    """The configuration as the function expects it. Raises BadInput when the type changed,
    MissingExtra."""
    if packed["type"] is None:
        return packed["value"]
    if packed["type"] == dictconfig.TYPE:
        return dictconfig.made(packed["value"])
    from pydantic import TypeAdapter, ValidationError

    kind = load(packed["type"])
    try:
        return TypeAdapter(kind).validate_python(packed["value"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(
            f"the run's config does not fit {packed['type']} any more: {where}: {first['msg']}",
            "Give the new field a default, or train with fresh=True.",
        ) from None


def changes(old: dict[str, Any], new: dict[str, Any], path: str = "") -> list[str]:
    """What differs between two packed values, a line each: "lr: 0.001 -> 0.01"."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{path or 'config'}: {old} -> {new}"]
    lines = []
    for key in [*old, *(key for key in new if key not in old)]:
        inner = f"{path}.{key}" if path else key
        if key not in old:
            lines.append(f"{inner}: new, {new[key]}")
        elif key not in new:
            lines.append(f"{inner}: gone, was {old[key]}")
        else:
            lines += changes(old[key], new[key], inner)
    return lines
