"""Configurations of OmegaConf, as Hydra gives them: recognised without importing it.

They travel as plain values, interpolations resolved, and the training function gets a `DictConfig`
again. OmegaConf is imported only where an object of it is there already, or was.
"""

from __future__ import annotations

import copy
from typing import Any

from penstock.base.errors import BadInput, CannotTravel, MissingExtra

TYPE = "omegaconf:DictConfig"


def is_one(value: Any) -> bool:
    """Whether a value is a DictConfig or a ListConfig."""
    kind = type(value)
    return kind.__module__.startswith("omegaconf.") and kind.__name__ in (
        "DictConfig",
        "ListConfig",
    )


def is_dict(value: Any) -> bool:
    return is_one(value) and type(value).__name__ == "DictConfig"


def plain(value: Any, path: str) -> Any:
    """As dicts, lists and values, interpolations resolved. Raises CannotTravel with the path."""
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    try:
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise CannotTravel(
            f"{_where(path, error)} is ???, and must be given a value",
            "Set it before the call, or on the command line.",
            path=_where(path, error),
        ) from None
    except OmegaConfBaseException as error:
        what = str(error).split("\n")[0]
        raise CannotTravel(
            f"{_where(path, error)} cannot be resolved: {what}",
            "Mend the interpolation; it must refer to something within this config.",
            path=_where(path, error),
        ) from None


def made(values: Any) -> Any:
    """A DictConfig of plain values. Raises MissingExtra."""
    try:
        from omegaconf import OmegaConf
    except ImportError:
        raise MissingExtra(
            "the run's config is one of OmegaConf, which is not installed here",
            "pip install omegaconf",
        ) from None
    return OmegaConf.create(values)


def fields(config: Any) -> dict[str, Any]:
    """Names and values of one level; None for what is ??? or cannot be resolved."""
    from omegaconf.errors import OmegaConfBaseException

    found: dict[str, Any] = {}
    for name in config:
        try:
            found[str(name)] = config[name]
        except OmegaConfBaseException:
            found[str(name)] = None
    return found


def replaced(config: Any, name: str, value: Any, whole: str) -> Any:
    """A copy with one value replaced. Raises BadInput where its schema does not take it."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    new = copy.deepcopy(config)
    OmegaConf.set_readonly(new, False)
    try:
        new[name] = value
    except OmegaConfBaseException as error:
        raise BadInput(
            f"{whole}={value!r} does not fit: {str(error).splitlines()[0]}",
            "The config's own schema says what it takes.",
            key=whole,
        ) from None
    return new


def _where(path: str, error: Any) -> str:
    return f"{path}.{error.full_key}" if error.full_key else path
