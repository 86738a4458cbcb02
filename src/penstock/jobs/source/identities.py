"""What a function's result depends on besides its inputs: its code identity.

Followed from the function on, by reading source, never by running it:
- its AST and that of every function and class of the project that it refers to, transitively
  (classes whole, with their bases, decorators, defaults and annotations);
- constants of the project at module level: the statement, and its value as well where that is
  computed (`json.loads(…)`) and no function changes it; functions in a container are followed;
- statements at module level that change what a name means (`torch.set_default_dtype(...)`);
- for nested functions and lambdas: captured values;
- installed packages: their versions.

Comments, formatting, docstrings and positions do not count, nor does what is not referred to.
What cannot be followed (exec, globals(), a getattr by a computed name, a star import of what
cannot be read, a module passed around as a value) counts as its module's whole source.
Captured objects count by their state, as pickle would see it; what has none that could be kept
(an open file, a lock, a generator) is refused. Not seen: files read at run time, the versions of
Python and Penstock.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from penstock.base.errors import CannotTravel
from penstock.base.hashing import digest_bytes, digest_json
from penstock.jobs.source import syntax
from penstock.jobs.source.changing import text_of_computed
from penstock.jobs.source.entry import place
from penstock.jobs.source.live import (
    code_text,
    contents,
    is_data,
    is_literal,
    kept_in,
    names_in,
    nodes_at,
    role_of,
    stands_in_its_module,
)
from penstock.jobs.source.modules import Module, Modules, distribution
from penstock.jobs.source.objects import key_text, owner_of, state_of
from penstock.jobs.source.parts import PACKAGE, CodeIdentity
from penstock.jobs.source.syntax import Binding, Chain, Import
from penstock.jobs.source.values import classes_in, text_of


def identity(function: Any) -> CodeIdentity:
    """The identity of a function or class; the same in every process that has the same source.

    A functools.partial counts as its function and its arguments; a bound method as its class and
    the state of its object; a function without a file as its bytecode.

    Raises CannotTravel: it captured what has no state that could be kept, such as an open file.
    """
    walk = Walk()
    walk.object(function, "")
    parts = dict(sorted((walk.parts | walk.roles()).items()))
    return CodeIdentity(digest_json(parts), parts)


class Walk:
    """One walk: a queue of what was referred to and not yet looked at."""

    def __init__(self) -> None:
        self.parts: dict[str, str] = {}
        self._roles: dict[str, str] = {}
        self._seen: set[tuple[str, str]] = set()
        self._chains: set[tuple[str, Chain]] = set()
        self._objects: dict[int, Any] = {}
        self._labels: dict[int, str] = {}  # where an object was met first
        self._queue: list[tuple[str, str]] = []
        self._modules: Modules | None = None
        self._globals: dict[str, Mapping[str, Any]] = {}

    def roles(self) -> dict[str, str]:
        """Which captured function stands where; one that is the only one stands where it stands."""
        several = self._roles if len(self._roles) > 1 else {}
        return {f"{label} is": digest_bytes(name.encode()) for label, name in several.items()}

    # objects: where a walk begins, and what closures hold

    def object(self, value: Any, label: str) -> None:
        """A live function, class or captured value."""
        if id(value) in self._objects:
            return
        self._objects[id(value)] = value  # kept, so that its id is not given to another
        if isinstance(value, partial):
            self.object(value.func, label)
            self._captured(f"{label or 'partial'} arguments", (value.args, value.keywords))
        elif inspect.ismethod(value) and not inspect.isclass(value.__self__):
            self.object(type(value.__self__), label)
            self._captured(f"{label or 'method'} object", value.__self__)
        elif (owner := owner_of(value)) is not None:  # a method of a C class
            self.parts[label or "method"] = digest_bytes(value.__name__.encode())
            self._captured(f"{label or 'method'} object", owner)
        elif callable(value) and hasattr(value, "__qualname__"):  # or what cache() made
            self._named(value, label)
        else:
            self.object(type(value), label)
            for part, inner in state_of(value, label or "object").items():
                self._captured(f"{label or 'object'} {part}", inner)

    def _named(self, value: Any, label: str) -> None:
        module = self._enter(getattr(value, "__module__", None))
        if module is None or module.whose == "missing":
            self._bytecode(value, label)
        elif module.whose != "project":
            self.parts[f"{module.name}.{value.__qualname__}"] = "installed"
            self._outside(module.name)
        elif "<" not in value.__qualname__:
            self._follow(module.name, value.__qualname__.partition(".")[0])
            if not stands_in_its_module(value):
                self._made_at_run_time(value, f"{module.name}.{value.__qualname__} made here")
        else:
            self._nested(inspect.unwrap(value), module)
            self._wrappers(value, f"{module.name}.{value.__qualname__} wrapped")
        self._drain()

    def _made_at_run_time(self, value: Any, name: str) -> None:
        """What a program made under a name that its file has no definition of, or another one."""
        if inspect.isclass(value):
            self._class_without_source(value, name)
        else:
            self._wrappers(value, name)

    def _wrappers(self, value: Any, name: str) -> None:
        """What functools.wraps made look like the function below has code and state of its own."""
        while hasattr(value, "__wrapped__"):
            if isinstance(value, FunctionType):
                made = self._enter(value.__globals__.get("__name__"))
                if made is None:
                    self._new_part(name, digest_bytes(code_text(value.__code__).encode()))
                elif made.whose == "project":
                    self._follow(made.name, value.__code__.co_qualname.partition(".")[0])
                self._closure(value, name)
            value = value.__wrapped__

    def _enter(self, found: str | None) -> Module | None:
        """A module of live objects, under the name that other processes give it."""
        module = sys.modules.get(found or "")
        source = getattr(module, "__file__", None)
        if module is None or source is None or not Path(source).is_file():
            return None
        file = Path(source).resolve()
        try:
            name, root = place(module, file)
        except CannotTravel:
            name, root = file.stem, file.parent
        if self._modules is None:
            self._modules = Modules(name, file, root)
        self._globals[name] = vars(module)
        return self._modules.at(name, file)

    def _nested(self, value: Any, module: Module) -> None:
        """What stands inside a function: its text, what it captured, its defaults' values."""
        name = f"{module.name}.{value.__qualname__}"
        nodes = nodes_at(module, value)
        if not nodes:
            self._bytecode(value, name)
            return
        code: CodeType | None = getattr(value, "__code__", None)
        texts = [syntax.canonical(node) for node in nodes]
        if code is not None and len(nodes) > 1:  # lambdas on one line
            texts.append(code_text(code))
        name = self._new_part(name, digest_json(texts))
        for node in nodes:
            self._refer(module, node, syntax.chains(node, names_in(code) if code else None))
        if code is not None:
            self._captured(f"{name} defaults", (value.__defaults__, value.__kwdefaults__))
            self._closure(value, name)

    def _closure(self, value: Any, name: str) -> None:
        names = value.__code__.co_freevars
        for variable, cell in zip(names, value.__closure__ or (), strict=True):
            if (held := contents(cell)) is not getattr(value, "__wrapped__", self):
                self._captured(f"{name} captured {variable}", held)

    def _new_part(self, name: str, digest: str) -> str:
        """Add a part under a name of its own: all lambdas of a function are called the same."""
        free = name
        while free in self.parts:
            free = f"{name} #{int(free.rpartition(' #')[2]) + 1 if free != name else 2}"
        self.parts[free] = digest
        return free

    def _captured(self, label: str, value: Any) -> None:
        if inspect.isclass(value) or inspect.isroutine(value):
            self._roles[label] = role_of(value)
            self.object(value, label)
        elif inspect.ismodule(value):
            self.parts[label] = digest_bytes(value.__name__.encode())
            self._passed(value.__name__)
        elif (text := text_of(value)) is not None:
            self.parts[label] = digest_bytes(text.encode())
            if type(value).__module__ != "builtins":
                self.object(type(value), label)  # a dataclass has methods, too
            for inner in classes_in(value):
                self.object(inner, label)
        elif id(value) in self._objects:
            first = self._labels.get(id(value), "")  # a circle, or the same once more
            self.parts[label] = digest_bytes(f"again {first}".encode())
        else:
            self._objects[id(value)], self._labels[id(value)] = value, label
            self._inside(label, value)

    def _inside(self, label: str, value: Any) -> None:
        """What is not made of simple values only."""
        if isinstance(value, dict):
            for index, key in enumerate(sorted(value, key=key_text)):
                self._captured(f"{label}.{key_text(key) or index}", value[key])
                if not key_text(key):
                    self._captured(f"{label}.{index} key", key)
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                self._captured(f"{label}.{index}", item)
        elif isinstance(value, set | frozenset):
            for index, item in enumerate(sorted(value, key=self._apart)):
                self._captured(f"{label}.{index}", item)
        else:
            self.parts[label] = digest_bytes(type(value).__qualname__.encode())
            del self._objects[id(value)]
            self.object(value, label)

    def _apart(self, value: Any) -> str:
        """A digest of one item by itself, to put the items of a set in an order."""
        walk = Walk()
        walk._objects, walk._labels = dict(self._objects), dict(self._labels)
        walk._captured("item", value)
        return digest_json(walk.parts)

    def _passed(self, module: str) -> None:
        """A module that is passed around as a value."""
        if self._modules is not None and self._modules[module].whose == "project":
            self._follow(module, "*")
            self._drain()
        else:
            self._outside(module)

    def _bytecode(self, value: Any, label: str) -> None:
        """What has no source file: a notebook's cell, a prompt, `python -c`, a C function."""
        name = label or role_of(value)
        if inspect.isclass(value):
            self._class_without_source(value, name)
            return
        code = getattr(inspect.unwrap(value), "__code__", None)
        if code is None:
            self.parts[name] = "installed"
            self._outside(getattr(value, "__module__", None) or "builtins")
            return
        function = inspect.unwrap(value)
        part = self._new_part(name, digest_bytes(code_text(code).encode()))
        for used in sorted(names_in(code)):
            if used in value.__globals__ and not hasattr(builtins, used):
                self._used(f"{value.__module__}.{used}", value.__globals__[used])
        if (defaults := (function.__defaults__, function.__kwdefaults__)) != (None, None):
            self._captured(f"{part} defaults", defaults)
        self._closure(function, part)
        self._wrappers(value, f"{part} wrapped")

    def _used(self, label: str, value: Any) -> None:
        """A global, which may be anything: what cannot be kept counts by its type."""
        if inspect.isclass(value) or inspect.isroutine(value):
            self.object(value, label)
            return
        try:
            self._captured(label, value)
        except CannotTravel:
            self.parts[label] = digest_bytes(type(value).__qualname__.encode())

    def _class_without_source(self, value: type, name: str) -> None:
        members = {key: member for key, member in vars(value).items() if key != "__dict__"}
        texts = {key: text_of(member) for key, member in members.items()}
        self._new_part(name, digest_json([str(value.__qualname__), texts]))
        for key, member in sorted(members.items()):
            member = getattr(member, "__func__", member)  # of static and class methods
            if isinstance(member, FunctionType):
                self.object(member, f"{name}.{key}")
            elif texts[key] is None and is_data(key, member):
                self._captured(f"{name}.{key}", member)
        for base in value.__bases__:
            if base.__module__ != "builtins":
                self.object(base, f"{base.__module__}.{base.__qualname__}")

    # names: everything else is found by reading

    def _drain(self) -> None:
        while self._queue:
            self._visit(*self._queue.pop())

    def _follow(self, module: str, name: str) -> None:
        if (module, name) not in self._seen:
            self._seen.add((module, name))
            self._queue.append((module, name))

    def _visit(self, module_name: str, name: str) -> None:
        assert self._modules is not None
        module = self._modules[module_name]
        if name == "*" or module.outline is None:
            self._whole(module)
            return
        bindings = module.outline.bindings(name)
        if bindings:
            self._bound(module, name, bindings)
        elif not self._in_stars(module, name) and module.outline.dynamic:
            self._whole(module)

    def _bound(self, module: Module, name: str, bindings: list[Binding]) -> None:
        texts: list[str] = []
        for binding in bindings:
            texts += map(syntax.canonical, binding.conditions)
            for condition in binding.conditions:
                self._refer(module, condition, syntax.chains(condition, None))
            if binding.imported is not None:
                texts.append(str(binding.imported))  # `_chain` follows it to what is used
                continue
            texts.append(syntax.canonical(binding.statement))
            self._statement(module, name, binding.statement)
        if not any(isinstance(binding.statement, syntax.DEFINITIONS) for binding in bindings):
            texts += self._live(module, name, bindings)
        self.parts[f"{module.name}.{name}"] = digest_json(texts)

    def _statement(self, module: Module, name: str, statement: ast.stmt) -> None:
        if isinstance(statement, syntax.DEFINITIONS):
            assert module.outline is not None
            used = module.outline.scopes.get((statement.name, statement.lineno), frozenset())
            found = syntax.chains(statement, used)
            for part in syntax.outer_parts(statement):
                found |= syntax.chains(part, None)
        else:
            found = syntax.chains(statement, None)
        self._refer(module, statement, {chain for chain in found if chain[0] != name})

    def _refer(self, module: Module, node: ast.AST, found: Iterable[Chain]) -> None:
        """Follow every chain that `node` holds, and give up on the module where it must be."""
        local = syntax.local_imports(node, module.package)
        for chain in sorted({*found, *syntax.chains(node, frozenset(local))}):
            if chain[0] in local:
                self._imported(local[chain[0]], chain[1:])
            else:
                self._chain(module, chain)
        targets = syntax.dynamic_getattrs(node)
        if syntax.is_dynamic(node) or any(not self._is_foreign(module, t, local) for t in targets):
            self._follow(module.name, "*")

    def _chain(self, module: Module, chain: Chain) -> None:
        """Follow one reference, as written in `module`, through imports to what it means."""
        if (module.name, chain) in self._chains:
            return
        self._chains.add((module.name, chain))
        self._follow(module.name, chain[0])
        for binding in module.outline.bindings(chain[0]) if module.outline else []:
            if binding.imported is not None:
                self._imported(binding.imported, chain[1:])

    def _imported(self, imported: Import, rest: Chain) -> None:
        """Follow `module.attribute.rest…` as far as modules go, then the name it reaches."""
        assert self._modules is not None
        module = self._modules[imported.module]
        steps = ((imported.attribute,) if imported.attribute else ()) + rest
        while True:
            if module.whose in ("installed", "missing"):
                self._outside(imported.module)
            if module.whose != "project":
                return
            if not steps:
                self._follow(module.name, "*")  # passed around as a value
                return
            inner = f"{module.name}.{steps[0]}"
            known = module.outline is not None and steps[0] in module.outline.names
            if known or not self._modules.is_module(inner):
                self._follow(module.name, steps[0])
                self._chain(module, steps)
                return
            module, steps = self._modules[inner], steps[1:]

    def _in_stars(self, module: Module, name: str) -> bool:
        assert self._modules is not None and module.outline is not None
        for star in module.outline.stars:
            source = self._modules[star]
            if source.whose != "project":
                self._outside(star)
            elif source.outline is None or source.outline.dynamic:
                self._whole(source)
            elif name in source.outline.names or source.outline.stars:
                self._chain(source, (name,))
                return True
        return False

    def _whole(self, module: Module) -> None:
        """Give up following: the module counts as it is, and so does all that it names."""
        key = f"{module.name} (whole)"
        if key in self.parts or module.whose != "project":
            return
        if module.outline is None:
            self.parts[key] = module.digest
            return
        self.parts[key] = digest_bytes(syntax.canonical(module.outline.tree).encode())
        for name in sorted(module.outline.names):
            self._chain(module, (name,))
        for star in module.outline.stars:
            self._follow(star, "*")

    def _outside(self, module: str) -> None:
        top = module.partition(".")[0]
        found = distribution(top)
        if found is not None and top not in sys.stdlib_module_names and top != "penstock":
            self.parts[PACKAGE + found[0]] = found[1]

    def _is_foreign(self, module: Module, target: ast.expr, local: dict[str, Import]) -> bool:
        """Whether a getattr by a computed name looks into a module that is not the project's."""
        assert self._modules is not None
        for chain in syntax.chains(target, None):
            bindings = module.outline.bindings(chain[0]) if module.outline else []
            imports = [binding.imported for binding in bindings if binding.imported]
            imports += [local[chain[0]]] if chain[0] in local else []
            if any(self._modules[found.module].whose != "project" for found in imports):
                return True
        return False

    def _live(self, module: Module, name: str, bindings: list[Binding]) -> list[str]:
        """Values that the source does not tell, of modules that the entry imports at its top level:
        one that a function imports later gives the same identity before and after."""
        assert self._modules is not None
        if module.name not in self._modules.eager:
            return []
        loaded = sys.modules.get(module.name)
        known = self._globals.get(module.name) or getattr(loaded, "__dict__", {})
        if name not in known or any(binding.imported for binding in bindings):
            return []
        value = known[name]
        for kept in kept_in(value):
            of = self._enter(kept.__module__)
            if of is not None and of.whose == "project" and "<" not in kept.__qualname__:
                self._follow(of.name, kept.__qualname__.partition(".")[0])
        if all(is_literal(binding.statement) for binding in bindings):
            return []
        text = text_of(value, mutable=False)
        if text is None and name not in self._modules.changed:
            text = text_of_computed(value)
        return [] if text is None else [text]
