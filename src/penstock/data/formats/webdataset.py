"""WebDataset: tar files in which members of one base name, one after the other, are a sample.

"a/0001.jpg" and "a/0001.cls" are one row: key "a/0001", column "jpg" (bytes) and column "cls"
(int64). Extensions of text become text, those of numbers int64, all others bytes as they are;
nothing is ever unpickled. Headers are read once, and pieces are ranges of whole samples. Members
are never written anywhere; names that would leave a folder, links and devices are bad records.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.data.formats import remote
from penstock.data.formats.base import FileSource, meant
from penstock.data.formats.files import (
    File,
    digest_ranges,
    digest_whole,
    file_name,
    of_the_system,
    opened,
)
from penstock.data.formats.port import BLOCK_BYTES, BadRecord, Block, Input

_NUMBERS = {"cls", "cls2", "index", "inx", "id"}
_TEXTS = {"txt", "text", "transcript", "json", "jsonl", "xml", "html", "csv", "md"}
_IMAGES = {"jpg", "jpeg", "png", "gif", "webp", "bmp", "tif", "tiff", "ppm"}
_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)")
_LONGEST = 1 << 30  # bytes of a member; a larger one belongs beside the tar file
_ROWS = 4096  # of a block
_AHEAD = 8 << 20  # bytes of one request to an object store
_SEEN = 256  # pieces' bounds of how many files are remembered
_bounds: dict[tuple[str, str, int], list[tuple[int, int]]] = {}


@dataclass
class Sample:
    """One base name: its members' bytes by extension; offset of its first header."""

    key: str
    offset: int
    values: dict[str, Any] = field(default_factory=dict)
    size: int = 0
    faults: list[str] = field(default_factory=list)


class WebDatasetSource(FileSource):
    """`open_source("shards-*.tar")`

    Columns are those of the first sample; a sample that has others is a bad record. With `columns`
    (extensions), members that are not there are missing values and others are passed over.
    """

    format = "webdataset"
    suffixes = (".tar", ".tar.gz", ".tgz")

    def inputs(self) -> Sequence[Input]:
        files = self.files()
        if self._schema is None:
            self._schema = self._first_schema(files)
        return [piece for file in files for piece in self._pieces(file)]

    def digest(self, input: Input) -> str:
        if input.piece is None:
            return digest_whole(input)
        _, first, end = input.piece
        return digest_ranges(input, [(first, end)], b"")

    def read(self, input: Input) -> Iterator[Block | BadRecord]:
        name = file_name(input)
        rows = _Rows(self.schema, name)
        with _tar(input) as tar:
            for sample in _samples(tar, input):
                self._check(sample)
                if sample.faults:
                    yield from rows.block()
                    place = f"{name}:{sample.key}@{sample.offset}"
                    yield BadRecord(place, "; ".join(sample.faults))
                    continue
                if rows.full(sample):
                    yield from rows.block()
                rows.add(sample)
            yield from rows.block()

    def _check(self, sample: Sample) -> None:
        """Note what the sample lacks or has too much, and decode texts and numbers."""
        wanted = self.schema.names[1:]
        if self.columns is None:
            lacking = [name for name in wanted if name not in sample.values]
            unknown = [name for name in sample.values if name not in wanted]
            sample.faults += [f"it has no .{name}" for name in lacking]
            sample.faults += [f"it has .{name}, the first sample has none" for name in unknown]
        for name in wanted:
            raw = sample.values.get(name)
            if raw is None:
                continue
            kind = self.schema.field(name).type
            try:
                sample.values[name] = _decoded(raw, kind)
            except ValueError as error:
                sample.faults.append(f".{name} is not {kind}: {error}")

    def _first_schema(self, files: Sequence[File]) -> pa.Schema:
        if self.columns is not None:
            names = [name for name in self.columns if name != "key"]
        else:
            whole = files[0].whole()
            with _tar(whole) as tar:
                first = next(_samples(tar, whole), None)
            if first is None:
                raise BadInput(f"{files[0].name} has no samples", "Leave it out.")
            names = list(first.values)
        fields = [meant("key", pa.string(), "key"), *map(_field, names)]
        found = [each.with_type(self.cast.get(each.name, each.type)) for each in fields]
        return pa.schema(found)

    def _pieces(self, file: File) -> Iterator[Input]:
        if (
            file.size <= self.piece_bytes
            or not file.name.lower().endswith(".tar")
            or remote.is_remote(file.uri)
        ):
            yield file.whole()
            return
        key = (file.uri, file.stamp, self.piece_bytes)
        if key not in _bounds:
            if len(_bounds) >= _SEEN:
                _bounds.clear()
            _bounds[key] = self._find_bounds(file)
        for first, end in _bounds[key]:
            yield file.piece("bytes", first, end, end - first)

    def _find_bounds(self, file: File) -> list[tuple[int, int]]:
        """(first, end) of pieces, each beginning with a sample; from headers alone."""
        whole = file.whole()
        found, start, key = [], 0, ""
        with _tar(whole) as tar:
            for member in _members(tar, whole):
                base, _ = _split(member.name)
                if base != key and member.offset - start >= self.piece_bytes:
                    found.append((start, member.offset))
                    start = member.offset
                key = base
        return [*found, (start, file.size)]


class _Rows:
    """Samples on their way to a block."""

    def __init__(self, schema: pa.Schema, name: str) -> None:
        self._schema = schema
        self._name = name
        self._samples: list[Sample] = []
        self._size = 0

    def full(self, sample: Sample) -> bool:
        return bool(self._samples) and (
            self._size + sample.size > BLOCK_BYTES or len(self._samples) >= _ROWS
        )

    def add(self, sample: Sample) -> None:
        self._samples.append(sample)
        self._size += sample.size

    def block(self) -> Iterator[Block]:
        samples, self._samples, self._size = self._samples, [], 0
        if not samples:
            return
        arrays = [pa.array([each.key for each in samples], pa.string())]
        for column in list(self._schema)[1:]:
            arrays.append(pa.array([s.values.get(column.name) for s in samples], column.type))
        table = pa.table(arrays, schema=self._schema)
        places = [f"{self._name}:{each.key}@{each.offset}" for each in samples]
        yield Block(table, places.__getitem__)


def _field(extension: str) -> pa.Field:
    last = extension.rpartition(".")[2]
    if last in _NUMBERS:
        return pa.field(extension, pa.int64())
    if last in _TEXTS:
        return pa.field(extension, pa.string())
    meaning = "encoded-image" if last in _IMAGES else "audio" if last == "wav" else ""
    return meant(extension, pa.binary(), meaning)


def _decoded(raw: bytes, kind: pa.DataType) -> Any:
    if pa.types.is_binary(kind):
        return raw
    text = raw.decode()
    if pa.types.is_integer(kind):
        return int(text)
    return float(text) if pa.types.is_floating(kind) else text


def _split(name: str) -> tuple[str, str]:
    """(key, extension in lower case): up to the first dot of the last part of the name."""
    found = _NAME.fullmatch(name)
    return (found[1], found[2].lower()) if found else (name, "")


def _samples(tar: tarfile.TarFile, input: Input) -> Generator[Sample]:
    """The samples of an input, their members' bytes read."""
    sample: Sample | None = None
    for member in _members(tar, input):
        key, extension = _split(member.name)
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = Sample(key, member.offset)
        if fault := _fault(member, extension):
            sample.faults.append(fault)
        elif extension in sample.values:
            sample.faults.append(f"it has .{extension} twice")
        else:
            sample.values[extension] = _bytes(tar, member, input)
            sample.size += member.size
    if sample is not None:
        yield sample


def _fault(member: tarfile.TarInfo, extension: str) -> str:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        return f"{member.name!r} is a path that leaves its folder"
    if not member.isreg():
        return f"{member.name!r} is a link or device, not a file"
    if member.size > _LONGEST:
        return (
            f"{member.name!r} has {member.size} bytes; beside the tar file it could be referred to"
        )
    return "" if extension else f"{member.name!r} has no extension, so it names no column"


def _members(tar: tarfile.TarFile, input: Input) -> Generator[tarfile.TarInfo]:
    """Headers of an input's members in order, folders left out. Raises BadInput at damage."""
    end = None if input.piece is None else input.piece[2]
    last = "its beginning"
    try:
        while True:
            member = tar.next()
            tar.members.clear()  # type: ignore[attr-defined]
            if member is None or (end is not None and member.offset >= end):
                break
            last = member.name
            if not member.isdir():
                yield member
        if member is None:
            _check_end(tar)
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as error:
        if of_the_system(error):
            raise
        raise _damaged(input, tar.offset, f"after {last}", error) from None


def _damaged(input: Input, offset: int, where: str, error: Exception) -> BadInput:
    return BadInput(
        f"{file_name(input)} is damaged or cut off at byte {offset}, {where}: {error}",
        "Write or copy it again, or leave it out.",
        path=input.uri,
        offset=offset,
    )


def _check_end(tar: tarfile.TarFile) -> None:
    """tarfile takes a broken header for the end; the real one is a block of zeros."""
    stream: Any = tar.fileobj
    stream.seek(tar.offset)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.TarError("it has no end mark")
    if block.strip(b"\0"):
        raise tarfile.TarError("what follows is no header of a tar file")


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo, input: Input) -> bytes:
    stream: Any = tar.fileobj
    try:
        stream.seek(member.offset_data)
        data: bytes = stream.read(member.size)
        if len(data) < member.size:
            raise EOFError(f"{len(data)} of {member.size} bytes are there")
    except (EOFError, OSError, zlib.error) as error:
        if of_the_system(error):
            raise
        raise _damaged(input, member.offset_data, f"in {member.name}", error) from None
    return data


@contextmanager
def _tar(input: Input) -> Generator[tarfile.TarFile]:
    """An input's file, to be read from its piece's first header on."""
    with opened(input, ahead=_AHEAD) as stream:
        source: BinaryIO = stream
        if not file_name(input).lower().endswith(".tar"):
            source = gzip.GzipFile(fileobj=stream)  # type: ignore[assignment]
        if input.piece is not None:
            source.seek(input.piece[1])
        try:
            tar = tarfile.TarFile(fileobj=source)
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            if of_the_system(error):
                raise
            raise BadInput(
                f"{file_name(input)} is no tar file, or damaged from its beginning on: {error}",
                "Write or copy it again, or leave it out.",
                path=input.uri,
                offset=stream.tell(),
            ) from None
        with tar:
            yield tar
