"""Names whose values functions of the project change as the program goes.

A list, dict, set or array that a module computes when it is imported is part of what a function
depends on, unless something of that name is changed later: then its value says when we looked.
Read from the source, by the last names of what is assigned to, deleted or called.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from penstock.jobs.source.values import text_of

_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_METHODS = {
    "add", "append", "appendleft", "clear", "difference_update", "discard", "extend",
    "extendleft", "fill", "insert", "intersection_update", "itemset", "move_to_end",
    "partition", "pop", "popitem", "popleft", "put", "remove", "resize", "reverse", "rotate",
    "setdefault", "setfield", "setflags", "sort", "subtract", "symmetric_difference_update",
    "update",
}  # fmt: skip
_CALLS = {
    "copyto", "delattr", "heapify", "heappop", "heappush", "heappushpop", "heapreplace",
    "insort", "insort_left", "insort_right", "place", "put", "putmask", "setattr", "shuffle",
}  # fmt: skip
_MOST_ITEMS = 1 << 17  # in all containers of one value
_MOST_BYTES = 1 << 28  # of one array


def changed_names(tree: ast.Module) -> frozenset[str]:
    """Of the functions of a module, methods and lambdas included.

    >>> sorted(changed_names(ast.parse("def f():\\n    seen[0] = len(read)\\n    a.b.append(1)")))
    ['a', 'b', 'seen']
    """
    inside = (node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS))
    return frozenset(
        name for function in inside for node in ast.walk(function) for name in _changed_by(node)
    )


def _changed_by(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Global(names=names):
            yield from names
        case (
            ast.Subscript(ctx=ast.Store() | ast.Del()) | ast.Attribute(ctx=ast.Store() | ast.Del())
        ):
            yield from _names(node)
        case ast.Call(func=func, args=arguments, keywords=keywords):
            name = next(_names(func), "")
            if isinstance(func, ast.Attribute) and (name in _METHODS or _in_place(name)):
                yield from _names(func.value)
            if name in _CALLS:
                for argument in arguments:
                    yield from _names(argument)
            for keyword in keywords:
                if keyword.arg == "out":
                    yield from _names(keyword.value)


def _in_place(method: str) -> bool:
    """As torch names what changes its tensor."""
    return method.endswith("_") and not method.startswith("_")


def _names(node: ast.AST) -> Iterator[str]:
    """Of a dotted, indexed or called reference, from its end on."""
    while True:
        match node:
            case ast.Name(id=name):
                yield name
                return
            case ast.Attribute(value=inner, attr=name):
                yield name
                node = inner
            case ast.Subscript(value=inner) | ast.Starred(value=inner) | ast.Call(func=inner):
                node = inner
            case _:
                return


def text_of_computed(value: Any) -> str | None:
    """One text for what a module computed and nothing changes; None for what is too large to be
    looked at each time, for objects with methods of their own, and for what has no text."""
    frozen = getattr(getattr(value, "__dataclass_params__", None), "frozen", True)
    return text_of(value) if frozen and _is_small(value) else None


def _is_small(value: Any) -> bool:
    stack, seen = [value], 0
    while stack:
        item = stack.pop()
        seen += 1
        size = getattr(item, "nbytes", 0)
        if seen > _MOST_ITEMS or (isinstance(size, int) and size > _MOST_BYTES):
            return False
        if isinstance(item, dict):
            stack += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            stack += item
    return True
