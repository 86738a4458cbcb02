"""The example project that the demo runs: examples/digits, in a checkout or in the package."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from penstock.base.errors import MissingExtra, NotFound
from penstock.home import verbs

_PACKAGE = Path(__file__).resolve().parents[2]
_PLACES = (_PACKAGE.parents[1] / "examples" / "digits", _PACKAGE / "examples" / "digits")


class Project:
    """The example, driven by the same verbs that its own `main` uses."""

    def __init__(self) -> None:
        self._module = _load()

    def config(self, **changes: Any) -> Any:
        return self._module.Config(**changes)

    def prepare(self) -> Any:
        return self._module.make_dataset()

    def train(self, name: str, config: Any, fresh: bool = False) -> Any:
        return verbs.train(
            self._module.fit, config, name=name, workers=2, checkpoint_every=20, fresh=fresh
        )

    def evaluate(self, model: str) -> Any:
        return verbs.evaluate(self._module.SUITE, model, baseline="digits-cnn@production")


def _load() -> ModuleType:
    """The module `train` of examples/digits. Raises MissingExtra, which names what to install."""
    folder = next((place for place in _PLACES if (place / "train.py").is_file()), None)
    if folder is None:
        raise NotFound(
            "the example project is not in this installation",
            "Run the demo from a checkout of Penstock, or install the wheel again.",
        )
    sys.path.insert(0, str(folder))
    try:
        for name in ("torch", "sklearn", "onnxruntime", "tritonclient.grpc"):
            importlib.import_module(name)
        return importlib.import_module("train")
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"the demo needs {error.name}", "Install it: pip install 'penstock[demo]'."
        ) from None
