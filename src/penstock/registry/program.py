"""The torch.export file of a package: made without what only its maker needs, screened before use.

torch.export.load trusts its file: it falls back to unpickling, evaluates symbolic expressions,
resolves operators by any dotted name below `torch`, and runs strings as guards. So a file is
loaded only when it contains nothing of that kind (`screen`), and only such files are published.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from penstock.base.errors import Damaged
from penstock.registry.binding import arguments
from penstock.registry.manifest import Place

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

# Names inside the archive, below its top folder. All else (pickled tensors of older formats,
# custom objects, compiled code) is refused.
_PLAIN = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|models/model\.json"
    r"|data/(weights/(weight_\d+|model_weights_config\.json)"
    r"|constants/(tensor_\d+|model_constants_config\.json)|sample_inputs/model\.pt)"
)
_TARGET = re.compile(
    r"torch\.ops\.(aten|prims|quantized|quantized_decomposed)"
    r"\.((?!__)\w+|__i?(and|or|xor|lshift|rshift)__)(\.(?!_)\w+)?"
    r"|torch\.ops\.higher_order\.(cond|map_impl|scan|while_loop|wrap_with_\w+)"
    r"|torch\._?sym_\w+|math\.(?!_)\w+|_operator\.(?!_|attrgetter|itemgetter|methodcaller|call)\w+"
)
_SYMPY = {
    *("Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Mod", "PythonMod", "Where"),
    *("FloorDiv", "CeilDiv", "CleanDiv", "IntTrueDiv", "FloatTrueDiv", "ModularIndexing"),
    *("Max", "Min", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not"),
    *("Equality", "Unequality", "LessThan", "GreaterThan", "StrictLessThan", "StrictGreaterThan"),
    *("ToFloat", "TruncToInt", "FloorToInt", "CeilToInt", "RoundToInt", "PowByNatural", "FloatPow"),
}
_SPECS = {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
_NODES = (
    ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.UnaryOp, ast.BinOp,
    ast.Compare, ast.BoolOp, ast.operator, ast.unaryop, ast.cmpop, ast.boolop,
)  # fmt: skip


def export(model: Any, places: Sequence[Place], rows: Sequence[Tensor]) -> ExportedProgram:
    """Trace `model` with a dynamic batch; raises what torch.export raises.

    rows  at least two, because a batch of one is taken for a constant
    """
    import torch

    args, kwargs = arguments(places, rows)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        model, args, kwargs, dynamic_shapes={each.parameter: {0: batch} for each in places}
    )
    for graph in _graphs(program.graph_module):
        for node in graph.graph.nodes:
            for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "custom"):
                node.meta.pop(key, None)  # paths of this machine, of no use elsewhere
    return program


def to_bytes(program: ExportedProgram) -> bytes:
    """The file; equal programs give equal bytes. Raises Damaged when `screen` would refuse it."""
    import torch

    program._example_inputs = None  # they would be pickled
    if hasattr(program, "_guards_code"):
        program._guards_code = []  # code as text; the signature checks more than it does
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    data = buffer.getvalue()
    screen(data)
    return data


def from_bytes(data: bytes) -> Any:
    """A module to call, from a file that `screen` lets pass. Raises Damaged.

    What is loaded is written anew from what was screened, so that no second reading of the same
    bytes (a name that is there twice, say) can find something else.
    """
    import torch

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in screen(data).items():
            archive.writestr(f"archive/{name}", content)
    buffer.seek(0)
    return torch.export.load(buffer).module()


def screen(data: bytes) -> dict[str, bytes]:
    """Refuse a file that could do more than arithmetic; return its parts, by name.

    Raises Damaged, naming what was found.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        if foreign := [name for name in parts if _PLAIN.fullmatch(name) is None]:
            raise _unsafe(f'a file "{foreign[0]}"')
        if parts["data/sample_inputs/model.pt"]:
            raise _unsafe("pickled sample inputs")
        for kind in ("weights", "constants"):
            config = json.loads(parts[f"data/{kind}/model_{kind}_config.json"])["config"]
            if any(entry["use_pickle"] for entry in config.values()):
                raise _unsafe(f"pickled {kind}")
        _screen_graph(json.loads(parts["models/model.json"]))
    except (zipfile.BadZipFile, KeyError, ValueError, AttributeError, TypeError) as bad:
        raise _unsafe(f"something that is no exported program ({bad})") from None
    return parts


def _screen_graph(model: dict[str, Any]) -> None:
    if model.get("guards_code"):
        raise _unsafe("guards as code")
    for key, value in _walk(model):
        if key == "target" and isinstance(value, str) and _TARGET.fullmatch(value) is None:
            raise _unsafe(f'an operator "{value[:80]}"')
        if key == "expr_str" and not _is_arithmetic(str(value)):
            raise _unsafe(f'an expression "{str(value)[:80]}"')
        if key in ("in_spec", "out_spec"):
            kinds = {found for name, found in _walk(json.loads(value)) if name == "type"}
            if foreign := kinds - _SPECS:
                raise _unsafe(f"arguments or results of type {sorted(map(str, foreign))[0]}")


def _is_arithmetic(text: str) -> bool:
    """Whether sympy would compute and nothing else: known functions, names, numbers."""
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        return False
    for node in ast.walk(tree):
        if not isinstance(node, _NODES):
            return False
        if isinstance(node, ast.Call) and not (
            isinstance(node.func, ast.Name) and node.func.id in _SYMPY
        ):
            return False
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if not re.fullmatch(r"\w{1,40}|-?[\d.]+(e[+-]?\d+)?", node.value):
                return False
            if "__" in node.value:
                return False
        if isinstance(node, ast.Name) and "__" in node.id:
            return False
    return True


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of nested JSON."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key, item
            yield from _walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item)


def _graphs(module: Any) -> Iterator[Any]:
    from torch.fx import GraphModule

    return (each for each in module.modules() if isinstance(each, GraphModule))


def _unsafe(what: str) -> Damaged:
    return Damaged(
        f"the torch.export file holds {what}, which Penstock does not load from storage",
        "Use the package's ONNX file or its weights; publish the model again with this Penstock.",
        found=what,
    )
