"""How work gets into a worker: functions by their names, the source by how it is opened.

Only between a process and its own workers, over their private socket; nothing of it is stored.
"""

from __future__ import annotations

import base64
import io
import pickle
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock.base.errors import CannotTravel, PenstockError
from penstock.data.pipeline.opening import Opening
from penstock.data.pipeline.work import Steps, Work
from penstock.jobs.source import load, locate
from penstock.jobs.source.entry import place

_FUNCTIONS = ("map", "batch_map", "collate")


def packed(opening: Opening, steps: Steps) -> dict[str, Any]:
    """A message from which `unpacked` makes the same work elsewhere. Raises CannotTravel."""
    paths = list(sys.path)
    names: dict[str, Any] = {}
    for name in _FUNCTIONS:
        function = getattr(steps, name)
        if callable(function):
            entry = locate(function)
            names[name] = entry.text
            if str(entry.root) not in paths:
                paths.insert(0, str(entry.root))
    changes: dict[str, Any] = dict.fromkeys(names)
    bare = replace(steps, **changes)
    try:
        data = _pickled((opening, bare), paths)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise CannotTravel(
            f"the source cannot travel to a worker: {error}",
            "Define it at the top level of a .py file, without open files or threads, or use "
            "workers=0.",
        ) from None
    return {
        "paths": paths,
        "main": _main(paths),
        "functions": names,
        "data": base64.b64encode(data).decode(),
    }


def _pickled(value: Any, paths: list[str]) -> bytes:
    out = io.BytesIO()
    _Pickler(out, paths).dump(value)
    return out.getvalue()


class _Pickler(pickle.Pickler):
    """Adds the folders from which what it meets is imported to `paths`."""

    def __init__(self, file: io.BytesIO, paths: list[str]) -> None:
        super().__init__(file, protocol=5)
        self._paths = paths
        self._seen: set[str] = set()

    def reducer_override(self, value: Any) -> Any:
        name = getattr(value, "__module__", None)
        if isinstance(value, type) and isinstance(name, str) and name not in self._seen:
            self._seen.add(name)
            file = getattr(sys.modules.get(name), "__file__", None)
            if file is not None:
                with suppress(PenstockError):
                    root = str(place(sys.modules[name], Path(file).resolve())[1])
                    if root not in self._paths:
                        self._paths.append(root)
        return NotImplemented


def _main(paths: list[str]) -> str:
    """By what name another process imports this process's script; "" where it cannot."""
    module = sys.modules.get("__main__")
    file = getattr(module, "__file__", None)
    if module is None or file is None:
        return ""
    try:
        name, root = place(module, Path(file).resolve())
    except PenstockError:
        return ""
    if str(root) not in paths:
        paths.insert(0, str(root))
    return name


def unpacked(message: dict[str, Any]) -> tuple[Any, Work]:
    """(the source, the work over it). Raises what opening the source raises, and errors of the
    user's module."""
    sys.path[:] = message["paths"]
    data = base64.b64decode(message["data"])
    opening, steps = _Unpickler(io.BytesIO(data), message["main"]).load()
    functions = {name: load(text) for name, text in message["functions"].items()}
    source = opening.open()
    return source, Work(source, replace(steps, **functions))


class _Unpickler(pickle.Unpickler):
    """What was defined in the script is found in the module that the script is here."""

    def __init__(self, file: io.BytesIO, main: str) -> None:
        super().__init__(file)
        self._main = main

    def find_class(self, module: str, name: str) -> Any:
        if module == "__main__":
            if not self._main:
                raise CannotTravel(
                    f'"{name}" was not defined in a file, so no worker can import it',
                    "Define it at the top level of a .py file and run that file.",
                )
            return load(f"{self._main}:{name}")
        return super().find_class(module, name)
