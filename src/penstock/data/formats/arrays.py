"""Files of named arrays (HDF5, Zarr): arrays of equal first dimension are columns, row by row.

Where a group holds arrays, they are the columns, those in groups below it too ("obs/image"). Where
it holds only groups of arrays, each group is an episode: its rows get the columns `episode` (the
group's name) and `step` (0, 1, …). Groups are ordered as people count: demo_2 before demo_10.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.base.hashing import Hasher
from penstock.base.nearest import did_you_mean
from penstock.data.columns import tensor_array
from penstock.data.formats.base import FileSource, blocks, meant
from penstock.data.formats.files import File, file_name, remembered
from penstock.data.formats.listing import Given
from penstock.data.formats.port import BLOCK_BYTES, PIECE_BYTES, BadRecord, Block, Input
from penstock.data.formats.schemas import Schemas

_SHOWN = 10
_VARYING = 1 << 12  # bytes that a value without a fixed size is taken for


@dataclass(frozen=True, slots=True)
class Part:
    """The arrays of one group: name of the episode ("" where the group is the whole table)."""

    name: str
    rows: int
    arrays: dict[str, Any]


class ArraysSource(FileSource):
    """What HDF5 and Zarr share.

    group     path of the group to read; by default the root, or the only group in it
    episodes  True: each group in it is an episode; False: it is one table; None: as it looks
    """

    def __init__(
        self,
        given: Given,
        *,
        columns: Sequence[str] | None = None,
        cast: Mapping[str, str] | None = None,
        piece_bytes: int = PIECE_BYTES,
        group: str | None = None,
        episodes: bool | None = None,
    ) -> None:
        super().__init__(given, columns=columns, cast=cast, piece_bytes=piece_bytes)
        self._group = group
        self._episodes = episodes

    @abstractmethod
    def open_root(self, input: Input) -> AbstractContextManager[Any]:
        """The root group of an input's file; a library's errors in the block become BadInput."""

    @abstractmethod
    def children(self, group: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """(arrays, groups) of a group, by name."""

    def check(self, array: Any, first: int, end: int) -> None:
        """Look at rows of an array before they are read; raises ValueError at damage."""

    def inputs(self) -> Sequence[Input]:
        schemas = Schemas(set(self.cast))
        found: list[Input] = []
        for file in self.files():
            with self.open_root(file.whole()) as root:
                parts = self._parts(root, file.name)
                for part in parts:
                    where = f"{file.name}:{part.name}" if part.name else file.name
                    schemas.add(where, self.chosen(_schema(part, where)))
                found.extend(self._pieces(file, parts))
        schemas.raise_if_any()
        if self._schema is None:
            assert schemas.first is not None
            self._schema = self.settle(schemas.first)
        return found

    def digest(self, input: Input) -> str:
        """SHA-256 of the values, type and shape of each column, block by block: a change in one
        place of a file leaves its other pieces what they were."""

        def compute() -> str:
            hasher = Hasher()
            for block in self.read(input):
                assert isinstance(block, Block)
                for batch in block.table.combine_chunks().to_batches():
                    hasher.update(memoryview(batch.serialize()))
            return hasher.digest

        return remembered(input, "values", compute)

    def read(self, input: Input) -> Iterator[Block | BadRecord]:
        name = file_name(input)
        unit, first, end = input.piece or ("groups", 0, None)
        with self.open_root(input) as root:
            parts = self._parts(root, name)
            if unit == "rows":
                yield from self._rows(parts[0], name, first, end or parts[0].rows)
                return
            for part in parts[first:end]:
                yield from self._rows(part, name, 0, part.rows)

    def _rows(self, part: Part, name: str, first: int, end: int) -> Iterator[Block]:
        where = f"{name}:{part.name}" if part.name else name
        wanted = {n: part.arrays[n] for n in self.schema.names if n in part.arrays}
        size = sum(_row_bytes(array) for array in wanted.values())
        step = max(1, min(65_536, BLOCK_BYTES // max(1, size)))
        for start in range(first, end, step):
            stop = min(start + step, end)
            for array in wanted.values():
                self.check(array, start, stop)
            columns = {n: _arrow(n, array, start, stop, where) for n, array in wanted.items()}
            if part.name:
                columns.setdefault("episode", pa.array([part.name] * (stop - start)))
                columns.setdefault("step", pa.array(np.arange(start, stop)))
            table = self.fit(pa.table(columns), lambda: f"{where} row {start}")  # noqa: B023
            yield from blocks(table, lambda row, start=start: f"{where} row {start + row}")  # type: ignore[misc]

    def _parts(self, root: Any, name: str) -> list[Part]:
        group = self._find(root, name)
        arrays, groups = self.children(group)
        arrays = {key: array for key, array in arrays.items() if array.shape}
        whole = bool(arrays) or not groups if self._episodes is None else not self._episodes
        if whole:
            return [self._part("", group, name)]
        keys = sorted(groups, key=_as_counted)
        return [self._part(key, groups[key], f"{name}:{key}") for key in keys]

    def _find(self, root: Any, name: str) -> Any:
        if self._group is not None:
            group = root
            for key in filter(None, self._group.split("/")):
                groups = self.children(group)[1]
                if key not in groups:
                    raise BadInput(
                        f'{name} has no group "{self._group}"', did_you_mean(key, groups)
                    )
                group = groups[key]
            return group
        arrays, groups = self.children(root)
        while not arrays and len(groups) == 1:
            only = next(iter(groups.values()))
            if not self.children(only)[1]:
                break
            root = only
            arrays, groups = self.children(root)
        return root

    def _part(self, key: str, group: Any, where: str) -> Part:
        found = dict(self._below(group, ""))
        if self.columns is not None:
            found = {name: array for name, array in found.items() if name in self.columns}
        lengths = {name: array.shape[0] for name, array in found.items()}
        if not found:
            raise BadInput(f"{where} holds no arrays", "Name the group with group=.")
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {length}" for name, length in list(lengths.items())[:_SHOWN])
            raise BadInput(
                f"the arrays of {where} are not equally long: {told}",
                "Choose those that are one table with columns=[…] or group=….",
                lengths=lengths,
            )
        return Part(key, next(iter(lengths.values())), found)

    def _below(self, group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        """All arrays of a group and the groups in it; single values are no columns."""
        arrays, groups = self.children(group)
        for key in sorted(arrays, key=_as_counted):
            if arrays[key].shape:
                yield prefix + key, arrays[key]
        for key in sorted(groups, key=_as_counted):
            yield from self._below(groups[key], f"{prefix}{key}/")

    def _pieces(self, file: File, parts: list[Part]) -> Iterator[Input]:
        pieces = math.ceil(file.size / self.piece_bytes)
        if pieces <= 1:
            yield file.whole()
            return
        unit = "groups" if parts[0].name else "rows"
        count = len(parts) if parts[0].name else parts[0].rows
        step = max(1, count // pieces)
        if unit == "rows":  # whole chunks, so that none is decompressed twice
            chunk = max((_chunk_rows(array) for array in parts[0].arrays.values()), default=1)
            step = math.ceil(step / chunk) * chunk
        for first in range(0, count, step):
            end = min(first + step, count)
            yield file.piece(unit, first, end, file.size * (end - first) // count)


def _as_counted(name: str) -> list[tuple[int, str]]:
    return [(int(part or 0), "") if part.isdigit() else (-1, part) for part in _digits(name)]


def _digits(name: str) -> list[str]:
    return re.findall(r"\d+|\D+", name)


def _chunk_rows(array: Any) -> int:
    return int(array.chunks[0]) if getattr(array, "chunks", None) else 1


def _row_bytes(array: Any) -> int:
    if _kind(array) in ("text", "list"):
        varying: int = _VARYING * math.prod(array.shape[1:])
        return varying
    size: int = array.dtype.itemsize * math.prod(array.shape[1:])
    return size


def _kind(array: Any) -> str:
    """ "number", "text", "list" or "" for what cannot be read."""
    kind = array.dtype.kind
    if kind in "biuf":
        return "number"
    if kind in "SUT" or (array.dtype.metadata is None and kind == "O"):
        return "text"
    told = dict(array.dtype.metadata or {}).get("vlen")
    if told in (str, bytes):
        return "text"
    return "list" if told is not None and np.dtype(told).kind in "biuf" else ""


def _schema(part: Part, where: str) -> pa.Schema:
    fields, refused = [], []
    for name, array in part.arrays.items():
        kind = _kind(array)
        if not kind or (kind != "number" and len(array.shape) > 1):
            refused.append(f'"{name}" is {array.dtype} {list(array.shape)}')
            continue
        fields.append((name, _arrow_type(array, kind)))
    if refused:
        raise BadInput(
            f"arrays of {where} that cannot be read: {'; '.join(refused)}",
            "Leave them out with columns=[…].",
            arrays=refused,
        )
    if not part.name:
        return pa.schema(fields)
    names = [name for name, _ in fields]
    more = [meant("episode", pa.string(), "episode"), pa.field("step", pa.int64())]
    return pa.schema([each for each in more if each.name not in names] + fields)


def _arrow_type(array: Any, kind: str) -> pa.DataType:
    if kind == "text":
        return pa.string()
    if kind == "list":
        return pa.list_(pa.from_numpy_dtype(np.dtype(array.dtype.metadata["vlen"])))
    value = pa.from_numpy_dtype(array.dtype.newbyteorder("="))
    return pa.fixed_shape_tensor(value, array.shape[1:]) if len(array.shape) > 1 else value


def _arrow(name: str, array: Any, first: int, end: int, where: str) -> pa.Array:
    """Rows first..end of an array; numbers without a copy beside the file's own reading."""
    values = np.asarray(array[first:end])
    kind = _kind(array)
    if kind == "number":
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        return tensor_array(values) if values.ndim > 1 else pa.array(values)
    try:
        if kind == "list":
            return pa.array(values.tolist(), _arrow_type(array, kind))
        texts = [each.decode() if isinstance(each, bytes) else str(each) for each in values]
        return pa.array(texts, pa.string())
    except (UnicodeDecodeError, pa.ArrowException) as error:
        raise BadInput(
            f'{where}: "{name}" between row {first} and {end} is not text: {error}',
            "Leave the array out with columns=[…], or write it as UTF-8.",
        ) from None
