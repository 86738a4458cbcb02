"""How a function travels: as `module:qualname`, to be imported by another process.

Nothing of the function itself is sent. What cannot be found again by its name is refused here,
before anything starts, with what to do about it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from penstock.base.errors import BadInput, CannotTravel, NotFound, PenstockError, UserCodeFailed
from penstock.base.nearest import did_you_mean

_TO_A_FILE = "Define it at the top level of a .py file and run that file."


@dataclass(frozen=True, slots=True)
class Entry:
    """A function or class that another process can import.

    module    dotted name, relative to `root`
    qualname  path of attributes inside the module, e.g. "fit" or "Trainer.fit"
    root      the folder that has to be on sys.path
    in_file   False for what was typed into a notebook: only this process finds it
    """

    module: str
    qualname: str
    root: Path
    in_file: bool = True

    @property
    def text(self) -> str:
        """`module:qualname`, which `load` takes."""
        return f"{self.module}:{self.qualname}"

    @property
    def file(self) -> Path:
        """The source file of `module` (of the package's `__init__` when it is one)."""
        stem = self.root.joinpath(*self.module.split("."))
        package = stem / "__init__.py"
        return package if package.is_file() else stem.with_name(stem.name + ".py")


def locate(function: Any, here: bool = False) -> Entry:
    """Where another process finds `function`.

    function  a function, or a class, at the top level of an importable file (or of a class there).
              One of a script (`__main__`) gets the module name of the script's file.
    here      only this process looks for it: what was typed into a notebook or a prompt will do;
              its `root` is the working directory, and no file has it

    Raises CannotTravel for lambdas, nested functions, bound methods, partials, other callables,
    builtins, and whatever was typed into a notebook, a prompt or `python -c`.
    """
    _refuse_what_has_no_name(function)
    module = sys.modules.get(function.__module__)
    file = getattr(module, "__file__", None)
    if module is None or file is None or not Path(file).is_file():
        if here and module is not None:
            _refuse_what_is_another(function, module)
            return Entry(module.__name__, function.__qualname__, Path.cwd(), in_file=False)
        raise CannotTravel(
            f"{_called(function)} was not defined in a file, so no other process can import it",
            _TO_A_FILE,
            function=function.__qualname__,
            module=function.__module__,
        )
    name, root = place(module, Path(file).resolve())
    _refuse_what_is_another(function, module)
    return Entry(name, function.__qualname__, root)


def load(text: str) -> Any:
    """Import what an `Entry.text` names, from sys.path.

    Raises BadInput (not of the form), NotFound (no such module or attribute) and UserCodeFailed
    (the module raised while it was imported; its traceback is in `facts` and in `__cause__`).
    Errors of Penstock that the module raised pass through as they are.
    """
    module_name, colon, qualname = text.partition(":")
    if not (module_name and colon and qualname):
        raise BadInput(f'"{text}" names no function', 'Write it as "module:function".', text=text)
    found: Any = _import(module_name)
    for step in qualname.split("."):
        try:
            found = getattr(found, step)
        except AttributeError:
            raise NotFound(
                f'"{module_name}" has no "{qualname}"',
                did_you_mean(step, [name for name in vars(found) if not name.startswith("_")]),
                text=text,
            ) from None
    return found


def _called(function: Any) -> str:
    return f'"{getattr(function, "__qualname__", type(function).__name__)}"'


def _refuse_what_has_no_name(function: Any) -> None:
    if isinstance(function, functools.partial):
        raise CannotTravel(
            "a functools.partial cannot be imported by another process",
            "Pass the function itself, and its values in the config or as params.",
        )
    if inspect.isbuiltin(function) or isinstance(function, type(str.join)):
        raise CannotTravel(
            f"{_called(function)} is not written in Python, so its code cannot be followed",
            "Call it from a function of your own.",
        )
    if inspect.ismethod(function) and not inspect.isclass(function.__self__):
        raise CannotTravel(
            f"{_called(function)} is bound to an object, which another process does not have",
            "Make it a function, and create the object inside it.",
        )
    if not hasattr(function, "__qualname__"):
        raise CannotTravel(
            f"an object of type {type(function).__name__} cannot be imported by another process",
            "Pass a function; create the object inside it.",
        )
    qualname = function.__qualname__
    if "<lambda>" in qualname:
        raise CannotTravel("a lambda has no name to be imported by", _TO_A_FILE, function=qualname)
    if "<locals>" in qualname:
        raise CannotTravel(
            f'"{qualname}" is defined inside a function, so no other process can import it',
            _TO_A_FILE,
            function=qualname,
        )


def _refuse_what_is_another(function: Any, module: ModuleType) -> None:
    found: Any = module
    for step in function.__qualname__.split("."):
        found = getattr(found, step, None)
    if found is not function and not (inspect.ismethod(function) and found == function):
        raise CannotTravel(
            f"{_called(function)} in {_told(module)} is not the function that was passed",
            "A decorator may need functools.wraps, or the name was bound again; pass what it "
            "means now.",
            function=function.__qualname__,
            file=_told(module),
        )


def _told(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or module.__name__


def place(module: ModuleType, file: Path) -> tuple[str, Path]:
    """The module's importable name, and the folder that it is relative to."""
    spec = getattr(module, "__spec__", None)
    name = module.__name__
    if name == "__main__" and spec is not None:
        name = spec.name  # python -m package.module
    if name == "__main__":
        return _place_of_script(file)
    steps = name.split(".")
    stem = file.parent if file.name == "__init__.py" else file.with_suffix("")
    if tuple(stem.parts[-len(steps) :]) != tuple(steps):
        raise CannotTravel(
            f'module "{name}" cannot be imported by that name: its file is {file}',
            "Import it the ordinary way, from a folder on sys.path.",
            module=name,
            file=str(file),
        )
    return name, Path(*stem.parts[: -len(steps)])


def _place_of_script(file: Path) -> tuple[str, Path]:
    """A script in a package gets its dotted name where the package can be imported by it.

    Elsewhere it saw its own folder on sys.path and no package, so other processes see the same.
    """
    steps, folder = [file.stem], file.parent
    while (folder / "__init__.py").is_file():
        steps.insert(0, folder.name)
        folder = folder.parent
    if folder not in {Path(place).resolve() for place in sys.path[1:]}:
        steps, folder = [file.stem], file.parent
    if "." in file.stem or file.suffix != ".py":
        raise CannotTravel(
            f"{file.name} cannot be imported by other processes",
            "Rename it to a plain NAME.py.",
            file=str(file),
        )
    if steps[0] in sys.stdlib_module_names:
        raise CannotTravel(
            f'{file.name} has the name of a module of Python\'s standard library ("{steps[0]}")',
            "Rename the file: other processes would import the other one.",
            file=str(file),
        )
    return ".".join(steps), folder


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except PenstockError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise NotFound(
                f'no module "{name}" on sys.path',
                "Was its file renamed, or left out of the source snapshot?",
                module=name,
                sys_path=list(sys.path),
            ) from None
        raise _import_failed(name, error) from error
    except SystemExit as error:
        raise UserCodeFailed(
            f'importing "{name}" ended the process (exit code {error.code})',
            'Put what the script does under `if __name__ == "__main__":`.',
            module=name,
            traceback=traceback.format_exc(),
        ) from error
    except Exception as error:
        raise _import_failed(name, error) from error


def _import_failed(name: str, error: Exception) -> UserCodeFailed:
    return UserCodeFailed(
        f'importing "{name}" failed: {type(error).__name__}: {error}',
        "The traceback names the line.",
        module=name,
        traceback="".join(traceback.format_exception(error)),
    )
