"""Penstock carries a model through its whole life: data, training, evaluation, registry, serving.

    import penstock as ps

Every name below is loaded when it is first used, so that importing Penstock costs nothing and
loads neither torch nor any other library. docs/cli.md has the commands, examples/ a whole project.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.base import errors
    from penstock.base.errors import PenstockError
    from penstock.base.settings import Settings
    from penstock.cli.script import main
    from penstock.evaluation import Suite, at_least, classification, not_worse
    from penstock.home import spark
    from penstock.home.trainers import in_ray_train
    from penstock.home.verbs import (
        attach,
        connect,
        deploy,
        evaluate,
        load,
        prepare,
        promote,
        serve,
        train,
        tune,
    )
    from penstock.home.verbs import open_data as open
    from penstock.training import Run
    from penstock.training.tuning import space

    __version__: str

__all__ = [
    "PenstockError",
    "Run",
    "Settings",
    "Suite",
    "__version__",
    "at_least",
    "attach",
    "classification",
    "connect",
    "deploy",
    "errors",
    "evaluate",
    "in_ray_train",
    "load",
    "main",
    "not_worse",
    "open",
    "prepare",
    "promote",
    "serve",
    "space",
    "spark",
    "train",
    "tune",
]

# name -> module, or module:name where it is called otherwise there; "" ends with the module itself
_HOMES = {
    "PenstockError": "penstock.base.errors",
    "Run": "penstock.training",
    "Settings": "penstock.base.settings",
    "Suite": "penstock.evaluation",
    "at_least": "penstock.evaluation",
    "attach": "penstock.home.verbs",
    "classification": "penstock.evaluation",
    "connect": "penstock.home.verbs",
    "deploy": "penstock.home.verbs",
    "errors": "penstock.base.errors:",
    "evaluate": "penstock.home.verbs",
    "in_ray_train": "penstock.home.trainers",
    "load": "penstock.home.verbs",
    "main": "penstock.cli.script",
    "not_worse": "penstock.evaluation",
    "open": "penstock.home.verbs:open_data",
    "prepare": "penstock.home.verbs",
    "promote": "penstock.home.verbs",
    "serve": "penstock.home.verbs",
    "space": "penstock.training.tuning.space:",
    "spark": "penstock.home.spark:",
    "train": "penstock.home.verbs",
    "tune": "penstock.home.verbs",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("penstock")
    where = _HOMES.get(name)
    if where is None:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    import importlib

    module_name, colon, attribute = where.partition(":")
    module = importlib.import_module(module_name)
    found = module if colon and not attribute else getattr(module, attribute or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
