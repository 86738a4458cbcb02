"""Reading Python source without running it: one text per meaning, and who refers to whom.

A *chain* is a dotted reference as written, from a name on: `torch.nn.Linear` is
("torch", "nn", "Linear"). A *binding* is a statement at the top level of a module that gives a
name its meaning, or changes what it means (`TABLE["a"] = 1`, `torch.set_default_dtype(...)`).
"""

from __future__ import annotations

import ast
import symtable
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

Chain = tuple[str, ...]
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar)
_DROPPED = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
_DYNAMIC = frozenset({"exec", "eval", "globals", "__import__", "import_module"})


def canonical(node: ast.AST) -> str:
    """One text for all spellings of a node: no positions, comments, docstrings, type comments.

    Empty fields are left out, so that a Python that adds fields to its AST gives the same text.
    Not recursive: generated code nests deeper than Python's stack.
    """
    out: list[str] = []
    stack: list[object] = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, _Text):
            out.append(item)
        elif isinstance(item, ast.AST):
            out.append(f"{type(item).__name__}(")
            stack.append(_Text(")"))
            for name, value in reversed(list(ast.iter_fields(item))):
                if name == "body" and isinstance(value, list):
                    value = _without_docstring(item, value)
                if name not in _DROPPED and (value is not None or name == "value") and value != []:
                    stack += [_Text(","), value, _Text(f"{name}=")]
        elif isinstance(item, list):
            out.append("[")
            stack.append(_Text("]"))
            for value in reversed(item):
                stack += [_Text(","), value]
        else:
            out.append(repr(item))
    return "".join(out)


class _Text(str):
    """A piece of output on the stack, told apart from a constant of the program."""

    __slots__ = ()


def _without_docstring(owner: ast.AST, body: list[ast.stmt]) -> list[ast.stmt]:
    if not isinstance(owner, (*DEFINITIONS, ast.Module)) or not body:
        return body
    first = body[0]
    if not (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)):
        return body
    return (body[1:] or [ast.Pass()]) if isinstance(first.value.value, str) else body


@dataclass(frozen=True, slots=True)
class Import:
    """What an import binds: a module, or `attribute` of it. Relative ones are made absolute."""

    module: str
    attribute: str | None = None

    def __str__(self) -> str:
        return self.module + (f".{self.attribute}" if self.attribute else "")


@dataclass(frozen=True, slots=True)
class Binding:
    """statement  the leaf statement
    conditions  tests, iterables and context managers of the blocks around it
    imported    what it imports under this name, if it is an import
    guarded     under `if __name__ == "__main__"`, so absent in other processes
    """

    statement: ast.stmt
    conditions: tuple[ast.expr, ...] = ()
    imported: Import | None = None
    guarded: bool = False


@dataclass(slots=True)
class Outline:
    """The top level of one module.

    names    what each name is bound by and changed by, in order
    stars    modules of `from X import *`
    eager    modules that importing this one imports
    dynamic  whether its top level may bind names that cannot be read (exec, globals())
    """

    tree: ast.Module
    names: dict[str, list[Binding]] = field(default_factory=lambda: defaultdict(list))
    stars: list[str] = field(default_factory=list)
    eager: list[Import] = field(default_factory=list)
    dynamic: bool = False
    scopes: dict[tuple[str, int], frozenset[str]] = field(default_factory=dict)

    def bindings(self, name: str) -> list[Binding]:
        """Those that other processes see, or the guarded ones when there are no others."""
        found = self.names.get(name, [])
        return [binding for binding in found if not binding.guarded] or found


def outline(source: str, module: str, is_package: bool) -> Outline:
    """Parse a module. Raises SyntaxError, ValueError (null bytes)."""
    tree = ast.parse(source)
    result = Outline(tree)
    package = module if is_package else module.rpartition(".")[0]
    _read_block(tree.body, result, package, (), False)
    for table in symtable.symtable(source, module, "exec").get_children():
        key = table.get_name(), table.get_lineno()
        result.scopes[key] = result.scopes.get(key, frozenset()) | _globals_of(table)
    return result


def _globals_of(table: symtable.SymbolTable) -> frozenset[str]:
    own = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global()}
    return frozenset(own).union(*(_globals_of(child) for child in table.get_children()))


def _read_block(
    body: list[ast.stmt],
    into: Outline,
    package: str,
    conditions: tuple[ast.expr, ...],
    guarded: bool,
) -> None:
    for statement in body:
        if isinstance(statement, _BLOCKS):
            _read_compound(statement, into, package, conditions, guarded)
        elif isinstance(statement, ast.Match):
            for case in statement.cases:
                _read_block(case.body, into, package, (*conditions, statement.subject), guarded)
        else:
            _read_leaf(statement, into, package, conditions, guarded)


def _read_compound(
    block: ast.stmt,
    into: Outline,
    package: str,
    conditions: tuple[ast.expr, ...],
    guarded: bool,
) -> None:
    inner = conditions
    match block:
        case ast.If(test=test) | ast.While(test=test):
            inner, guarded = (*conditions, test), guarded or _is_main_guard(test)
        case ast.For(target=target, iter=source) | ast.AsyncFor(target=target, iter=source):
            inner = (*conditions, source)
            _bind_targets([target], block, into, conditions, guarded)
        case ast.With(items=items) | ast.AsyncWith(items=items):
            inner = (*conditions, *(item.context_expr for item in items))
            targets = [item.optional_vars for item in items if item.optional_vars is not None]
            _bind_targets(targets, block, into, conditions, guarded)
    for part in ("body", "orelse", "finalbody"):
        _read_block(getattr(block, part, []), into, package, inner, guarded)
    for handler in getattr(block, "handlers", []):
        _read_block(handler.body, into, package, inner, guarded)


def _read_leaf(
    statement: ast.stmt,
    into: Outline,
    package: str,
    conditions: tuple[ast.expr, ...],
    guarded: bool,
) -> None:
    if isinstance(statement, DEFINITIONS):
        into.names[statement.name].append(Binding(statement, conditions, None, guarded))
        return
    if isinstance(statement, ast.Import | ast.ImportFrom):
        into.eager += [] if guarded else all_imports(statement, package)
        for name, imported in imports_of(statement, package):
            if name == "*":
                into.stars.append(imported.module)
            else:
                into.names[name].append(Binding(statement, conditions, imported, guarded))
        return
    into.dynamic |= not guarded and is_dynamic(statement)
    _bind_targets(_targets(statement), statement, into, conditions, guarded)


def _targets(statement: ast.stmt) -> list[ast.expr]:
    """Expressions whose base name the statement binds or changes."""
    walrus = [node.target for node in ast.walk(statement) if isinstance(node, ast.NamedExpr)]
    match statement:
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            return [*targets, *walrus]
        case ast.AnnAssign(target=target) | ast.AugAssign(target=target):
            return [target, *walrus]
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=changed))):
            return [changed, *walrus]
    name = getattr(statement, "name", None)  # `type X = ...` of Python 3.12
    return [name, *walrus] if isinstance(name, ast.expr) else [*walrus]


def _bind_targets(
    targets: list[ast.expr],
    statement: ast.stmt,
    into: Outline,
    conditions: tuple[ast.expr, ...],
    guarded: bool,
) -> None:
    names = {name for target in targets for name in _base_names(target)}
    for name in sorted(names):
        into.names[name].append(Binding(statement, conditions, None, guarded))


def _base_names(target: ast.expr) -> Iterator[str]:
    match target:
        case ast.Name(id=name):
            yield name
        case ast.Tuple(elts=items) | ast.List(elts=items):
            for item in items:
                yield from _base_names(item)
        case ast.Attribute(value=inner) | ast.Subscript(value=inner) | ast.Starred(value=inner):
            yield from _base_names(inner)
        case ast.Call(func=inner):
            yield from _base_names(inner)


def imports_of(
    statement: ast.Import | ast.ImportFrom, package: str
) -> Iterator[tuple[str, Import]]:
    """(name it binds, what it binds); the name is "*" for a star."""
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            whole = alias.name if alias.asname else alias.name.partition(".")[0]
            yield alias.asname or whole, Import(whole)
        return
    module = statement.module or ""
    if statement.level:
        steps = package.split(".") if package else []
        kept = steps[: len(steps) - (statement.level - 1)]
        module = ".".join([*kept, *([module] if module else [])])
    for alias in statement.names:
        yield alias.asname or alias.name, Import(module, alias.name)


def all_imports(node: ast.AST, package: str) -> list[Import]:
    """What the imports in `node` load; `import a.b` binds `a`, and loads `a.b`."""
    found: list[Import] = []
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            found += [Import(alias.name) for alias in inner.names]
        elif isinstance(inner, ast.ImportFrom):
            found += [imported for _, imported in imports_of(inner, package)]
    return found


def local_imports(node: ast.AST, package: str) -> dict[str, Import]:
    """Imports inside a function or class, by the name they bind."""
    return {
        name: imported
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
        for name, imported in imports_of(inner, package)
    }


def chains(node: ast.AST, names: frozenset[str] | None) -> set[Chain]:
    """Every reference in `node` that starts at one of `names` (None: at any name)."""
    found: set[Chain] = set()
    stack: list[ast.AST] = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, ast.Name | ast.Attribute):
            steps: list[str] = []
            base: ast.AST = item
            while isinstance(base, ast.Attribute):
                steps.append(base.attr)
                base = base.value
            if isinstance(base, ast.Name):
                if names is None or base.id in names:
                    found.add((base.id, *reversed(steps)))
                continue
            stack.append(base)
        else:
            stack.extend(ast.iter_child_nodes(item))
    return found


def outer_parts(node: Definition) -> list[ast.AST]:
    """What a definition evaluates in the scope around it: decorators, defaults, bases, hints."""
    parts: list[ast.AST] = [*node.decorator_list]
    if isinstance(node, ast.ClassDef):
        return [*parts, *node.bases, *node.keywords]
    return [*parts, node.args, *([node.returns] if node.returns else [])]


def is_dynamic(node: ast.AST) -> bool:
    """Whether it reaches for names that only exist at run time: exec, eval, globals() …"""
    return any(
        isinstance(inner, ast.Call)
        and (
            (isinstance(inner.func, ast.Name) and inner.func.id in _DYNAMIC)
            or (isinstance(inner.func, ast.Attribute) and inner.func.attr == "import_module")
        )
        for inner in ast.walk(node)
    )


def dynamic_getattrs(node: ast.AST) -> list[ast.expr]:
    """First arguments of every `getattr` whose name is not written out."""
    return [
        inner.args[0]
        for inner in ast.walk(node)
        if isinstance(inner, ast.Call)
        and isinstance(inner.func, ast.Name)
        and inner.func.id == "getattr"
        and len(inner.args) >= 2
        and not isinstance(inner.args[1], ast.Constant)
    ]


def _is_main_guard(test: ast.expr) -> bool:
    match test:
        case ast.Compare(
            left=ast.Name(id="__name__"),
            ops=[ast.Eq()],
            comparators=[ast.Constant(value="__main__")],
        ):
            return True
    return False
