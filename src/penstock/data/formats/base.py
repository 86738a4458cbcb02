"""What sources of files have in common: options, the one schema of all files, blocks of it."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from penstock.base.errors import BadInput
from penstock.base.hashing import canonical_json
from penstock.base.nearest import did_you_mean
from penstock.data.columns import MEANING, OPTIONS
from penstock.data.formats.files import File, digest_whole
from penstock.data.formats.listing import Given
from penstock.data.formats.port import BLOCK_BYTES, PIECE_BYTES, Block, Input, InputSource

_FEATURES = b"huggingface"  # metadata of a schema
_UNSAID = ("piece_bytes",)  # options that change how work is cut, not what is read


class FileSource(InputSource):
    """A source over files that are listed by name.

    given        what to list
    columns      which ones, in this order; None: all
    cast         column -> name of an Arrow type ("float32", "timestamp[us]"), where the file's or
                 the inferred one is not meant
    piece_bytes  larger files are read in pieces of about this size, where the format allows
    """

    suffixes: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        given: Given,
        *,
        columns: Sequence[str] | None = None,
        cast: Mapping[str, str] | None = None,
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        if isinstance(columns, str) or piece_bytes < 1:
            raise BadInput("columns is a list and piece_bytes a number above 0", "Correct it.")
        self.given = given
        self.columns = None if columns is None else list(columns)
        self.cast = {name: arrow_type_named(text) for name, text in (cast or {}).items()}
        self.piece_bytes = piece_bytes
        self.options: dict[str, Any] = {}
        self._schema: pa.Schema | None = None

    # the same source elsewhere

    def spec(self) -> dict[str, Any]:
        return {
            "format": self.format,
            "given": self.given.spec(),
            "options": self.options,
            "schema": _to_text(self.schema),
        }

    def how(self) -> dict[str, Any]:
        options = {k: v for k, v in self.options.items() if k not in _UNSAID}
        types = {field.name: f"{field.type} {_told(field)}".strip() for field in self.schema}
        return {"format": self.format, "options": options, "types": types}

    def pin(self, text: str | None) -> None:
        """Take the schema that another process found."""
        if text is not None:
            self._schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))

    # the schema of all files

    @property
    def schema(self) -> pa.Schema:
        """Of every block. Found once: a worker gets it in the spec."""
        if self._schema is None:
            self.inputs()
        assert self._schema is not None
        return self._schema

    def settle(self, found: pa.Schema) -> pa.Schema:
        """The schema of blocks for the schema of the files: `columns` chosen, `cast` applied."""
        self.check_names(found.names if self.columns is None else [*found.names, *self.cast])
        names = found.names if self.columns is None else self.columns
        fields = (found.field(name) for name in names)
        return pa.schema([each.with_type(self.cast.get(each.name, each.type)) for each in fields])

    def check_names(self, known: Sequence[str]) -> None:
        """Raise BadInput for a column of `cast` or `columns` that there is not."""
        for name in (*self.cast, *(self.columns or ())):
            if name not in known:
                raise BadInput(f'{self.given} has no column "{name}"', did_you_mean(name, known))

    def chosen(self, schema: pa.Schema) -> pa.Schema:
        """What `columns` leaves of a file's schema, so that files may differ in the rest."""
        if self.columns is None:
            return schema
        return pa.schema([field for field in schema if field.name in self.columns])

    def fit(self, table: pa.Table, where: Callable[[], str]) -> pa.Table:
        """A table of a file in the schema of all; raises BadInput where a value does not fit."""
        arrays = []
        for field in self.schema:
            found = table[field.name]
            try:
                arrays.append(found if found.type == field.type else as_type(found, field.type))
            except (pa.ArrowException, ValueError) as error:
                raise BadInput(
                    f'{where()}: column "{field.name}" is not {field.type}: {error}',
                    "Give a type that holds all values with cast=.",
                    column=field.name,
                ) from None
        return pa.table(arrays, schema=self.schema)

    @property
    def meanings(self) -> dict[str, str]:
        return meanings_of(self.schema)

    # inputs

    def files(self) -> list[File]:
        """All files; those with another extension are left out where some have the format's."""
        found = self.given.files()
        ours = [each for each in found if each.name.lower().endswith(self.suffixes)]
        if not found:
            raise BadInput(f"there is no file in {self.given}", "Check the path.")
        return ours or found

    def digest(self, input: Input) -> str:
        return digest_whole(input)


def arrow_type_named(text: str | pa.DataType) -> pa.DataType:
    """An Arrow type by its name, with a unit where it has one."""
    if isinstance(text, pa.DataType):
        return text
    try:
        if text.startswith("timestamp[") and ", tz=" in text:
            unit, zone = text.removesuffix("]").split("[")[1].split(", tz=")
            return pa.timestamp(unit, zone)
        return pa.type_for_alias(text)
    except (ValueError, AttributeError):
        raise BadInput(
            f'"{text}" is not the name of an Arrow type',
            'Such as "int64", "float32", "string", "binary", "bool", "timestamp[us]".',
        ) from None


def _told(field: pa.Field) -> str:
    told: bytes = (field.metadata or {}).get(MEANING, b"")
    return told.decode(errors="replace")


def meant(name: str, kind: pa.DataType, meaning: str = "", **options: Any) -> pa.Field:
    """An Arrow field that carries its semantic type, with the options that columns keep."""
    if not meaning:
        return pa.field(name, kind)
    told = {MEANING: meaning.encode()} | ({OPTIONS: canonical_json(options)} if options else {})
    return pa.field(name, kind, metadata=told)


def meanings_of(schema: pa.Schema) -> dict[str, str]:
    """Columns whose semantic type the fields tell."""
    return {field.name: told for field in schema if (told := _told(field))}


def bare(schema: pa.Schema) -> pa.Schema:
    """A file's schema as we compare and keep it: semantic types are all the metadata that stays,
    those that Hugging Face wrote among them, and an extension that only another library knows is
    what it is stored as."""
    found = pa.schema([_bare(field) for field in schema])
    try:
        told = json.loads((schema.metadata or {}).get(_FEATURES, b"{}"))
        return with_features(found, told["info"]["features"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return found


def with_features(schema: pa.Schema, features: Mapping[str, Any]) -> pa.Schema:
    """Tensors, categories and pictures as the features of Hugging Face tell them."""
    fields = []
    for field in schema:
        told: Any = features.get(field.name)
        kind = str(told.get("_type")) if isinstance(told, dict) else ""
        if kind.startswith("Array") and None not in told["shape"]:
            value = pa.from_numpy_dtype(told["dtype"])
            field = pa.field(field.name, pa.fixed_shape_tensor(value, told["shape"]))
        elif kind == "ClassLabel" and told.get("names"):
            field = meant(field.name, field.type, "category", names=list(told["names"]))
        elif kind == "Image" and is_bytes_and_path(field.type):
            field = meant(field.name, pa.binary(), "encoded-image")
        fields.append(field)
    return pa.schema(fields)


def is_bytes_and_path(kind: pa.DataType) -> bool:
    """Whether it is how Hugging Face keeps a file: its bytes, or where it lies."""
    return pa.types.is_struct(kind) and {each.name for each in kind} == {"bytes", "path"}


def _bare(field: pa.Field) -> pa.Field:
    kind = field.type
    if isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, pa.FixedShapeTensorType):
        kind = kind.storage_type
    told = {k: v for k, v in (field.metadata or {}).items() if k in (MEANING, OPTIONS)}
    return pa.field(field.name, kind, metadata=told or None)


def as_type(found: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """A column cast; an extension through what it is stored as. Raises ValueError."""
    if isinstance(found.type, pa.BaseExtensionType) and found.type != kind:
        found = pa.chunked_array([c.storage for c in found.chunks], found.type.storage_type)
    if is_bytes_and_path(found.type) and pa.types.is_binary(kind):
        return _bytes_of(found)
    if isinstance(kind, pa.FixedShapeTensorType) and found.type != kind:
        return pa.chunked_array([_as_tensor(chunk, kind) for chunk in found.chunks], kind)
    return found if found.type == kind else found.cast(kind)


def _bytes_of(files: pa.ChunkedArray) -> pa.ChunkedArray:
    found = pc.struct_field(files, "bytes")
    if pc.any(pc.and_(pc.is_null(found), pc.is_valid(pc.struct_field(files, "path")))).as_py():
        raise ValueError("it names files that lie elsewhere; embed them when saving")
    return found


def _as_tensor(lists: pa.Array, kind: pa.FixedShapeTensorType) -> pa.Array:
    """Lists of lists, or flat lists, as tensors of one shape."""
    size = math.prod(kind.shape)
    if lists.null_count:
        raise ValueError("a tensor is missing")
    flat = lists
    while pa.types.is_list(flat.type) or pa.types.is_fixed_size_list(flat.type):
        lengths = pc.unique(pc.list_value_length(flat)).to_pylist()
        if len(lengths) > 1:
            raise ValueError(f"lists are {sorted(lengths)[:3]} long, not all the same")
        flat = flat.flatten()
    if len(flat) != size * len(lists) or flat.null_count:
        raise ValueError(f"not every value has the shape {list(kind.shape)}")
    storage = pa.FixedSizeListArray.from_arrays(flat.cast(kind.value_type), size)
    return pa.ExtensionArray.from_storage(kind, storage)


def _to_text(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def cut(table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """(first row, slice) of at most 16 MiB each, by the mean size of a row; rows stay whole."""
    size = table.nbytes
    if size <= BLOCK_BYTES or table.num_rows <= 1:
        if table.num_rows:
            yield 0, table
        return
    rows = max(1, min(table.num_rows - 1, BLOCK_BYTES * table.num_rows // size))
    for start in range(0, table.num_rows, rows):
        for more, part in cut(table.slice(start, rows)):
            yield start + more, part


def blocks(table: pa.Table, place: Callable[[int], str]) -> Iterator[Block]:
    """A table as blocks; `place` counts in the whole table."""
    for start, part in cut(table):
        yield Block(part, lambda row, start=start: place(start + row))  # type: ignore[misc]
