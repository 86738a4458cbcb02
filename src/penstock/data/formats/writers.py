"""A dataset's rows written to files that others read: Parquet, Arrow, CSV, JSON lines, tar.

Each file is written beside its name, flushed and renamed: what has its name is whole. A file that
is there already is not replaced.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from penstock.base.errors import BadInput, Conflict
from penstock.base.files import os_errors, sync_folder
from penstock.base.nearest import did_you_mean
from penstock.data.columns import Column
from penstock.data.formats.base import cut

FILE_BYTES = 256 << 20  # of rows in memory; a file ends when it has as many
_NAME = "part-{:05d}"
_STARTS = {
    b"\xff\xd8": "jpg",
    b"\x89PNG": "png",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"WEBP": "webp",
    b"WAVE": "wav",
}  # first bytes (of RIFF, those of its kind) -> extension
_SAME = {"txt": {"txt", "text"}, "jpg": {"jpg", "jpeg"}, "cls": {"cls", "index", "id"}}


class Writer(ABC):
    """Writes tables of one schema into one open file."""

    suffix: str

    @staticmethod
    def refuse(columns: Sequence[Column]) -> list[str]:
        """Columns that the format cannot hold, described."""
        return []

    @abstractmethod
    def __init__(self, stream: BinaryIO, schema: pa.Schema, columns: Sequence[Column]) -> None: ...

    @abstractmethod
    def write(self, table: pa.Table) -> None: ...

    def close(self) -> None:  # noqa: B027 - most need no end
        """Write what ends the file; the stream stays open."""


def write_files(
    tables: Iterator[pa.Table],
    columns: Sequence[Column],
    folder: Path,
    format: str,
    *,
    file_bytes: int = FILE_BYTES,
) -> list[Path]:
    """Write tables as files `part-00000.…` in a folder; returns their paths in order.

    tables  of one schema, the columns'
    format  one of WRITERS

    Raises BadInput: no such format, columns that it cannot hold (all named), no rows; Conflict: a
    file is there already; DiskFull, ReadOnly, Unavailable. Files that are whole stay after an
    error, a file that is not is gone.
    """
    if format not in WRITERS:
        raise BadInput(f'nothing writes "{format}"', did_you_mean(format, WRITERS))
    kind = WRITERS[format]
    if refused := kind.refuse(columns):
        raise BadInput(
            f"{format} cannot hold {'; '.join(refused)}",
            "Leave them out, or write Parquet or Arrow.",
            columns=refused,
        )
    with os_errors("writing files", folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    parts = (part for table in tables for _, part in cut(table))
    part = next(parts, None)
    while part is not None:
        path = folder / (_NAME.format(len(paths)) + kind.suffix)
        with _beside(path) as stream:
            writer = kind(stream, part.schema, columns)
            size = 0
            try:
                while part is not None and size < file_bytes:
                    writer.write(part)
                    size += part.nbytes
                    part = next(parts, None)
            except BaseException:
                with suppress(OSError, ValueError):  # or the library ends the file later
                    writer.close()
                raise
            writer.close()
        paths.append(path)
    if not paths:
        raise BadInput("there are no rows to write", "Choose a split that has rows.")
    return paths


@contextmanager
def _beside(path: Path) -> Iterator[BinaryIO]:
    """A stream that becomes `path` when the block ends well, and nothing otherwise."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with os_errors("writing files", path.parent):
        try:
            with scratch.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            try:
                os.link(scratch, path)  # unlike a rename, it replaces nothing
            except FileExistsError:
                raise Conflict(
                    f"{path} is there already",
                    "Give another folder, or remove what is in it.",
                    path=str(path),
                ) from None
            sync_folder(path.parent)
        finally:
            with suppress(OSError):
                scratch.unlink()


class ParquetWriter(Writer):
    """Parquet, zstd, with checksums of pages."""

    suffix = ".parquet"

    def __init__(self, stream: BinaryIO, schema: pa.Schema, columns: Sequence[Column]) -> None:
        self._writer = pq.ParquetWriter(
            stream, schema, compression="zstd", write_page_checksum=True
        )

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)

    def close(self) -> None:
        self._writer.close()


class ArrowWriter(Writer):
    """Arrow IPC files, which readers map into memory."""

    suffix = ".arrow"

    def __init__(self, stream: BinaryIO, schema: pa.Schema, columns: Sequence[Column]) -> None:
        self._writer = pa.ipc.new_file(stream, schema)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table.combine_chunks())

    def close(self) -> None:
        self._writer.close()


class CsvWriter(Writer):
    """CSV with a header; numbers, text and times only."""

    suffix = ".csv"

    @staticmethod
    def refuse(columns: Sequence[Column]) -> list[str]:
        return [
            f'"{each.name}" ({each.kind})'
            for each in columns
            if each.kind not in ("number", "text", "time")
        ]

    def __init__(self, stream: BinaryIO, schema: pa.Schema, columns: Sequence[Column]) -> None:
        self._writer = pacsv.CSVWriter(stream, schema)

    def write(self, table: pa.Table) -> None:
        self._writer.write(table)

    def close(self) -> None:
        self._writer.close()


class JsonLinesWriter(Writer):
    """One object a line: tensors as lists, bytes in base64, times as ISO 8601, NaN as null."""

    suffix = ".jsonl"

    def __init__(self, stream: BinaryIO, schema: pa.Schema, columns: Sequence[Column]) -> None:
        self._stream = stream
        self._columns = columns

    def write(self, table: pa.Table) -> None:
        values = [_as_json(_listed(table[each.name], each)) for each in self._columns]
        names = [each.name for each in self._columns]
        for row in zip(*values, strict=True):
            line = json.dumps(dict(zip(names, row, strict=True)), default=str, ensure_ascii=False)
            self._stream.write(line.encode() + b"\n")


class WebDatasetWriter(Writer):
    """Tar files: a member per column of a row, named KEY.COLUMN.EXTENSION (KEY.EXTENSION where
    the column is named like one); a missing value has no member.

    The key is the column that means it or is named `key`, else the row's number; dots in it become
    %2E, because the first dot ends a key. Text is .txt, whole numbers .cls, tensors and lists
    .npy, pictures what their first bytes say, other bytes .bin, all else .json.
    """

    suffix = ".tar"

    def __init__(self, stream: BinaryIO, schema: pa.Schema, columns: Sequence[Column]) -> None:
        self._tar = tarfile.TarFile(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT)
        self._rows = 0
        keys = [each for each in columns if each.meaning == "key"]
        keys += [each for each in columns if each.name == "key"]
        self._key = keys[0] if keys else None
        self._columns = [each for each in columns if each is not self._key]
        self._names: dict[str, str] = {}  # column -> extension, from its first value on

    def write(self, table: pa.Table) -> None:
        values = [_listed(table[each.name], each) for each in self._columns]
        for number, key in enumerate(self._keys(table)):
            for column, of_column in zip(self._columns, values, strict=True):
                if of_column[number] is not None:
                    self._add(key, column, of_column[number])
        self._rows += table.num_rows

    def _keys(self, table: pa.Table) -> list[str]:
        if self._key is None:
            return [f"{self._rows + i:09d}" for i in range(table.num_rows)]
        keys = map(str, table[self._key.name].to_pylist())
        return [each.replace("%", "%25").replace(".", "%2E").lstrip("/") for each in keys]

    def _add(self, key: str, column: Column, value: Any) -> None:
        if column.name not in self._names:
            self._names[column.name] = _extension(column, value)
        member = tarfile.TarInfo(f"{key}.{self._names[column.name]}")
        data = _member(column, value)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))

    def close(self) -> None:
        self._tar.close()


def _extension(column: Column, value: Any) -> str:
    """How a column's members end."""
    if column.kind in ("tensor", "list"):
        found = "npy"
    elif column.kind == "text":
        found = "txt"
    elif column.kind == "number" and "int" in column.dtype:
        found = "cls"
    elif column.kind == "bytes":
        start = value[8:12] if value.startswith(b"RIFF") else value
        found = next((name for first, name in _STARTS.items() if start.startswith(first)), "bin")
    else:
        found = "json"
    return column.name if column.name in _SAME.get(found, {found}) else f"{column.name}.{found}"


def _member(column: Column, value: Any) -> bytes:
    if column.kind == "bytes":
        return bytes(value)
    if column.kind in ("tensor", "list"):
        stream = io.BytesIO()
        np.save(stream, np.asarray(value, column.dtype), allow_pickle=False)
        return stream.getvalue()
    if column.kind == "text" or (column.kind == "number" and "int" in column.dtype):
        return str(value).encode()
    return json.dumps(_as_json([value])[0], default=str).encode()


def _listed(values: pa.ChunkedArray, column: Column) -> list[Any]:
    """A column's values as Python has them; tensors as NumPy arrays."""
    if column.kind != "tensor":
        found: list[Any] = values.to_pylist()
        return found
    arrays = [chunk.to_numpy_ndarray() for chunk in values.chunks if len(chunk)]
    return [row for array in arrays for row in array]


def _as_json(values: list[Any]) -> list[Any]:
    """Values as JSON has them, which knows neither bytes nor times, NaN nor infinity."""
    return [_one_as_json(each) for each in values]


def _one_as_json(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return _as_json(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.isoformat() if hasattr(value, "isoformat") else value


WRITERS: dict[str, type[Writer]] = {
    "parquet": ParquetWriter,
    "arrow": ArrowWriter,
    "csv": CsvWriter,
    "jsonl": JsonLinesWriter,
    "webdataset": WebDatasetWriter,
}
