"""The identity of a script as a whole, for loops that are no function."""

from __future__ import annotations

from types import ModuleType

from penstock.base.hashing import digest_json
from penstock.jobs.source.identities import Walk
from penstock.jobs.source.modules import Module
from penstock.jobs.source.parts import CodeIdentity
from penstock.jobs.source.syntax import Binding


def script_identity(module: ModuleType) -> CodeIdentity:
    """The identity of a module: its source, and what of its project that names, without the values
    that they compute. It runs already, and `started = time.time()` is no change of code.
    Without parts where it has no file that is the project's: a notebook, a prompt."""
    walk = _Sources()
    walk.module(module)
    parts = dict(sorted(walk.parts.items()))
    return CodeIdentity(digest_json(parts), parts)


class _Sources(Walk):
    """A walk that begins at a module, and looks at no value."""

    def module(self, value: ModuleType) -> None:
        found = self._enter(value.__name__)
        if found is not None:
            self._whole(found)
            self._drain()

    def _live(self, module: Module, name: str, bindings: list[Binding]) -> list[str]:
        return []
