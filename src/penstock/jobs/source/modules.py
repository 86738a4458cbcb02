"""Modules as files: whose they are, and what their top level says. Nothing is imported here."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from penstock.base.hashing import digest_file
from penstock.base.project import project_folder
from penstock.jobs.source import syntax
from penstock.jobs.source.changing import changed_names
from penstock.jobs.source.entry import Entry
from penstock.jobs.source.syntax import Import, Outline, outline

Whose = Literal["project", "installed", "python", "penstock", "missing"]


@dataclass(slots=True)
class Module:
    """One module as a file.

    outline  of its source; None when it is not the project's, or cannot be parsed
    digest   of its bytes, for what cannot be read otherwise ("" without a file)
    """

    name: str
    whose: Whose
    file: Path | None
    is_package: bool
    outline: Outline | None
    digest: str

    @property
    def package(self) -> str:
        return self.name if self.is_package else self.name.rpartition(".")[0]


class Modules:
    """Modules by name, each read once. For one walk, in one thread; then thrown away.

    entry  the module that the walk begins in, which may run as `__main__`
    """

    def __init__(self, name: str, file: Path, root: Path) -> None:
        self._project = project_folder(root)
        self._inside_penstock = name.partition(".")[0] == "penstock"
        is_package = file.name == "__init__.py"
        self._root = str(root)
        self._specs: dict[str, ModuleSpec | None] = {}
        self._known: dict[str, Module] = {name: _read(name, file, is_package)}
        self._eager: frozenset[str] | None = None
        self._changed: frozenset[str] | None = None
        self.entry = name

    def __getitem__(self, name: str) -> Module:
        if name not in self._known:
            self._known[name] = self._find(name)
        return self._known[name]

    def at(self, name: str, file: Path) -> Module:
        """The module of a file that is loaded, whatever name it would be found by."""
        if self[name].whose == "missing":
            self._known[name] = _read(name, file, file.name == "__init__.py")
        return self[name]

    def is_module(self, name: str) -> bool:
        return self[name].whose != "missing"

    @property
    def eager(self) -> frozenset[str]:
        """Project modules that importing the entry's module imports: their values exist."""
        if self._eager is None:
            self._eager = frozenset(self._reach(lambda module, outline: outline.eager))
        return self._eager

    @property
    def all(self) -> frozenset[str]:
        """Project modules that the entry's module imports at any time, in functions too."""
        return frozenset(
            self._reach(lambda module, outline: syntax.all_imports(outline.tree, module.package))
        )

    @property
    def changed(self) -> frozenset[str]:
        """Names of what functions of these modules change; see `changing.py`."""
        if self._changed is None:
            found = (self[name].outline for name in self.all)
            self._changed = frozenset().union(*(changed_names(o.tree) for o in found if o))
        return self._changed

    def _reach(self, imports: Callable[[Module, Outline], Iterable[Import]]) -> list[str]:
        seen, queue = {self.entry}, [self.entry]
        for name in queue:
            found = self[name].outline
            for imported in imports(self[name], found) if found else []:
                for module in self._modules_of(str(imported)):
                    if module not in seen and self[module].whose == "project":
                        seen.add(module)
                        queue.append(module)
        return queue

    def _modules_of(self, dotted: str) -> list[str]:
        """Every prefix of a dotted path that is a module: importing it runs its parents too."""
        steps = dotted.split(".")
        prefixes = [".".join(steps[: end + 1]) for end in range(len(steps))]
        return [prefix for prefix in prefixes if self.is_module(prefix)]

    def _find(self, name: str) -> Module:
        if self._is_python(name):
            return Module(name, "python", None, False, None, "")
        spec = self._spec(name)
        if spec is None:
            return Module(name, "missing", None, False, None, "")
        is_package = spec.submodule_search_locations is not None
        file = Path(spec.origin).resolve() if spec.has_location and spec.origin else None
        whose = self._whose(name, file, spec)
        if whose == "project" and file is not None:
            return _read(name, file, is_package)
        return Module(name, whose, file, is_package, None, "")

    def _is_python(self, name: str) -> bool:
        top = name.partition(".")[0]
        return top in sys.stdlib_module_names and top not in self._known

    def _spec(self, name: str) -> ModuleSpec | None:
        """Like importlib's find_spec, but from the entry's root first, and importing no parent."""
        if name not in self._specs:
            parent, _, _ = name.rpartition(".")
            try:
                if parent:
                    above = self._spec(parent)
                    places = above.submodule_search_locations if above else None
                    found = PathFinder.find_spec(name, places) if places else None
                else:
                    found = PathFinder.find_spec(name, [self._root]) or find_spec(name)
            except (ImportError, ValueError, AttributeError):
                found = None  # a module without a spec, or a finder that does not hold
            self._specs[name] = found
        return self._specs[name]

    def _whose(self, name: str, file: Path | None, spec: ModuleSpec) -> Whose:
        top = name.partition(".")[0]
        if top == "penstock" and not self._inside_penstock:
            return "penstock"
        places = (
            [file] if file else [Path(place) for place in spec.submodule_search_locations or []]
        )
        if any(is_installed(place) for place in places):
            return "installed"
        if all(place.is_relative_to(self._project) for place in places):
            return "project"
        return "project" if distribution(top) is None else "installed"


def reached(entry: Entry) -> dict[Path, list[str]]:
    """Files of the project that the entry's module imports, ever, by their folder on sys.path.

    Paths are relative to their folder and sorted; the entry's own root comes first.
    """
    root = entry.root.resolve()
    modules = Modules(entry.module, entry.file.resolve(), root)
    found: dict[Path, list[str]] = {root: []}
    for name in sorted(modules.all):
        module = modules[name]
        if module.file is None:
            continue
        stem = module.file.parent if module.is_package else module.file
        folder = stem.parents[name.count(".")]
        found.setdefault(folder, []).append(module.file.relative_to(folder).as_posix())
    return {folder: sorted(files) for folder, files in found.items()}


@cache
def distribution(top: str) -> tuple[str, str] | None:
    """(distribution, version) that brings a top-level module, e.g. sklearn -> scikit-learn."""
    try:
        return top, importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        named = sorted({each.metadata["Name"] for each in _bringing(top)})
    return next(((name, importlib.metadata.version(name)) for name in named), None)


def _bringing(top: str) -> Iterator[importlib.metadata.Distribution]:
    """Distributions that say that they bring it, or have files of it. `packages_distributions`
    gives the same for all modules at once, which takes ten times as long as asking for one."""
    files = re.compile(rf"^{re.escape(top)}(/.*)?\.py,", re.MULTILINE)
    for each in importlib.metadata.distributions():
        declared = each.read_text("top_level.txt")
        if top in declared.split() if declared else files.search(each.read_text("RECORD") or ""):
            yield each


@cache
def _libraries() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple(Path(paths[kind]).resolve() for kind in kinds)


def is_installed(place: Path) -> bool:
    """Whether a file or folder belongs to Python or to an installed package."""
    if {"site-packages", "dist-packages"} & set(place.parts):
        return True
    return any(place.is_relative_to(library) for library in _libraries())


def _read(name: str, file: Path, is_package: bool) -> Module:
    try:
        found = outline(file.read_text(), name, is_package) if file.suffix == ".py" else None
    except (SyntaxError, ValueError, OSError):
        found = None
    try:
        digest = digest_file(file)
    except OSError:
        digest = ""
    return Module(name, "project", file, is_package, found, digest)
