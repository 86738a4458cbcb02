"""What `ps.train(preload=…)` names, checked before anything starts, and without importing it."""

from __future__ import annotations

import difflib
import importlib.metadata
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

from penstock.base.errors import BadInput
from penstock.jobs.source import is_installed


def checked(modules: Sequence[str], root: Path) -> list[str]:
    """The modules, each once.

    root  of the project: its own modules are imported from the run's snapshot, by each rank
    Raises BadInput, which names the module.
    """
    if isinstance(modules, str):
        raise BadInput(
            f'preload="{modules}" is a text, not a list', f'Give a list: preload=["{modules}"].'
        )
    for module in modules:
        _check(module, root.resolve())
    return list(dict.fromkeys(modules))


def _check(module: str, root: Path) -> None:
    if not isinstance(module, str) or not all(part.isidentifier() for part in module.split(".")):
        raise BadInput(f"preload names {module!r}, which is no module", 'Name it: "transformers".')
    spec = _find(module)
    if spec is None:
        top = module.partition(".")[0]
        known = importlib.metadata.packages_distributions()
        near = difflib.get_close_matches(top, known, n=1) if find_spec(top) is None else []
        raise BadInput(
            f'preload names "{module}", and there is no such module',
            f'Did you mean "{near[0]}"?' if near else "Install its package, or leave it out.",
            module=module,
        )
    places = list(spec.submodule_search_locations or [])
    if spec.has_location and spec.origin:
        places.append(spec.origin)
    for place in (Path(each).resolve() for each in places):
        if place.is_relative_to(root) and not is_installed(place):
            raise BadInput(
                f'preload names "{module}", which is part of this project ({place})',
                "Leave it out: ranks import the project from the run's snapshot.",
                module=module,
            )


def _find(module: str) -> ModuleSpec | None:
    """Like importlib's find_spec, but importing no parent."""
    top, *inner = module.split(".")
    try:
        spec = find_spec(top)
        for name in inner:
            if spec is None or spec.submodule_search_locations is None:
                return None
            places = spec.submodule_search_locations
            spec = PathFinder.find_spec(f"{spec.name}.{name}", places)
    except (ImportError, ValueError, AttributeError):  # a module without a spec
        return None
    return spec
