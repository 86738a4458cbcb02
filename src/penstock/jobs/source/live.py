"""What live objects tell and source does not: cells, containers, where they stand."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Mapping
from types import CellType, CodeType
from typing import Any

from penstock.jobs.source.modules import Module
from penstock.jobs.source.values import text_of

_METHODS = (classmethod, staticmethod, property)


def contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def kept_in(value: Any) -> list[Any]:
    """Functions and classes in a container: how registries refer to what they call."""
    if isinstance(value, Mapping):
        items = list(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        items = list(value)
    else:
        return []
    return [item for item in items if inspect.isfunction(item) or inspect.isclass(item)]


def is_literal(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
    try:
        ast.literal_eval(value)  # type: ignore[arg-type]
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def nodes_at(module: Module, value: Any) -> list[ast.AST]:
    """Where a nested function, lambda or class stands in its module; several when unsure."""
    code: CodeType | None = getattr(value, "__code__", None)
    nodes = ast.walk(module.outline.tree) if module.outline else iter(())
    if code is None:
        return [n for n in nodes if isinstance(n, ast.ClassDef) and n.name == value.__name__]
    if code.co_name == "<lambda>":
        return [n for n in nodes if isinstance(n, ast.Lambda) and n.lineno == code.co_firstlineno]
    return [
        node
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name == code.co_name
        and min(n.lineno for n in (node, *node.decorator_list)) == code.co_firstlineno
    ]


def names_in(code: CodeType) -> frozenset[str]:
    inner = (names_in(const) for const in code.co_consts if isinstance(const, CodeType))
    return frozenset(code.co_names).union(*inner)


def code_text(code: CodeType) -> str:
    consts = [
        code_text(const) if isinstance(const, CodeType) else text_of(const)
        for const in code.co_consts
    ]
    return repr((code.co_code, consts, code.co_names, code.co_varnames, code.co_freevars))


def role_of(value: Any) -> str:
    """A function or class by name: which one it is, not what it does."""
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"


def stands_in_its_module(value: Any) -> bool:
    """Whether the module binds this very object to its name, so that its source tells it."""
    found: Any = sys.modules.get(value.__module__ or "")
    for step in value.__qualname__.split("."):
        found = getattr(found, step, None)
    if inspect.isclass(value):
        return found is value
    layer = value
    while layer is not found and hasattr(layer, "__wrapped__"):
        if "<" in getattr(getattr(layer, "__code__", None), "co_qualname", ""):
            return False  # a wrapper that was put on elsewhere
        layer = layer.__wrapped__
    return True


def is_data(name: str, member: Any) -> bool:
    """Whether a member of a class is a value, not what Python keeps there for itself."""
    ours = (name.startswith("__") and name.endswith("__")) or name == "_abc_impl"
    if inspect.isroutine(member) or isinstance(member, _METHODS):
        return hasattr(member, "__wrapped__") and not isinstance(member, _METHODS)
    return not ours and not inspect.isdatadescriptor(member)
