"""What a preparation reads: raw files, a dataset version, or rows that a function gave."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.base.hashing import digest_json
from penstock.blobs import Blobs
from penstock.data.at_rest import decode
from penstock.data.formats import BadRecord, Block, Input, InputSource, open_source
from penstock.data.formats.base import blocks
from penstock.data.manifest import read_manifest
from penstock.data.preparation.again import Watch
from penstock.data.preparation.steps import names_of
from penstock.data.preparation.tables import put_table
from penstock.data.rows import Blocks
from penstock.jobs.source import identity
from penstock.records import Reference

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores

PIECE_BYTES = 4 << 20  # of a function's rows that become one input


class BlobSource(InputSource):
    """Tables in the blob store: the shards of a version, or pieces of a function's rows.

    pieces  name, digest, rows, bytes, format, number of the first row in its split
    """

    format = "penstock"

    def __init__(
        self, blobs: Blobs, pieces: Sequence[tuple[str, str, int, int, str, int]] = ()
    ) -> None:
        self._blobs = blobs
        self._pieces = pieces

    def spec(self) -> dict[str, Any]:
        return {"format": self.format}

    def how(self) -> dict[str, Any]:
        return {"format": self.format}

    def inputs(self) -> Sequence[Input]:
        return [
            Input(f"{name} {first}", digest, size, digest, (format, first, first + rows))
            for name, digest, rows, size, format, first in self._pieces
        ]

    def digest(self, input: Input) -> str:
        return input.uri

    def read(self, input: Input) -> Iterator[Block | BadRecord]:
        assert input.piece is not None
        format: Any = input.piece[0]
        table = decode(self._blobs.get(input.uri), format, input.uri)
        name, first = input.name.rpartition(" ")[0], input.piece[1]
        yield from blocks(table, lambda row: f"{name} row {first + row}")


def source_of(spec: Mapping[str, Any], blobs: Blobs) -> InputSource:
    """The source that a spec names, in another process."""
    return BlobSource(blobs) if spec["format"] == BlobSource.format else open_source(dict(spec))


@dataclass(frozen=True, slots=True)
class Opened:
    """A source, what people call it, the dataset versions behind it ("raw@2"), and what to tell of
    the function that gave it."""

    source: InputSource
    label: str
    versions: tuple[str, ...] = ()
    note: str = ""


def opened(stores: Stores, given: Any) -> Opened:
    """Raw files, or a dataset reference where no file of that name is.

    Raises BadInput, NotFound, MissingExtra.
    """
    if isinstance(given, str) and (reference := as_reference(given)) is not None:
        found = _dataset(stores, given, reference)
        if found is not None:
            return found
    _refuse_data(given)
    return Opened(open_source(given), _label(given))


def _refuse_data(given: Any) -> None:
    """Rows themselves were passed, or a number, or nothing."""
    known = isinstance(given, str | Path | InputSource)
    if isinstance(given, list | tuple):
        known = bool(given) and all(isinstance(each, str | Path) for each in given)
    elif isinstance(given, Mapping):
        known = "given" in given
    if not known and type(given).__module__.split(".")[0] != "datasets":
        raise BadInput(
            f"prepare was given a {type(given).__name__}, not a function, files or a dataset",
            "Pass a function without calling it (ps.prepare(name, make_rows)), paths of files, or "
            "a reference such as raw@2.",
        )


def _label(given: Any) -> str:
    if isinstance(given, list | tuple) and given:
        more = f" and {len(given) - 1} more" if len(given) > 1 else ""
        return f"{given[0]}{more}"
    if isinstance(given, Mapping):
        return _label(given.get("given"))
    return str(given) if isinstance(given, str | Path) else type(given).__name__


def as_reference(text: str) -> Reference | None:
    """What may name a dataset; None where a file of that name is, or no dataset can have it."""
    if Path(text).exists():
        return None
    try:
        return Reference.parse(text)
    except BadInput:
        return None


def _dataset(stores: Stores, text: str, reference: Reference) -> Opened | None:
    """None where nothing says that a dataset is meant, so that the path is what is missing."""
    with stores.meta.read() as meta:
        known = meta.find_version("dataset", reference.name) is not None
        if not known and "@" not in text and ":" not in text:
            return None
        version = meta.get_version("dataset", text)
    manifest = read_manifest(stores.blobs, version.digest, version.reference)
    if reference.split is not None:
        manifest.split(reference.split)
    pieces = []
    for split in manifest.splits if reference.split is None else [reference.split]:
        first = 0
        for shard in manifest.shards_of(split):
            name = f"{version.name}:{split}"  # without the number: a shard that stayed is no news
            pieces.append((name, shard.digest, shard.rows, shard.bytes, shard.format, first))
            first += shard.rows
    label = f"{version.reference}:{reference.split}" if reference.split else version.reference
    return Opened(BlobSource(stores.blobs, pieces), label, (version.reference,))


def spooled(
    stores: Stores,
    function: Callable[..., Any],
    params: Mapping[str, Any],
    entry: str,
    code: str,
    fresh: bool,
) -> Opened:
    """A function's rows as inputs: it runs in this process, once per code and parameters, and once
    more for its first rows (`again.py`).

    Hold a pin. Raises BadInput, UserCodeFailed.
    """
    key = _rows_key(code, params)
    with stores.meta.read() as meta:
        memory = None if fresh else meta.recall(key)
    if memory is not None and all(stores.blobs.exists(piece[1]) for piece in memory["pieces"]):
        pieces = [tuple(piece) for piece in memory["pieces"]]
        return Opened(BlobSource(stores.blobs, pieces), entry, note=memory.get("note", ""))
    watch = Watch(function, params, entry)
    found = list(_spool(stores.blobs, watch.given, entry))
    note = watch.unstable()
    with stores.meta.write() as tx:
        value = {"pieces": [list(each) for each in found], "note": note}
        tx.remember(key, "rows", value, [])
    return Opened(BlobSource(stores.blobs, found), entry, note=note)


def _rows_key(code: str, params: Mapping[str, Any]) -> str:
    return digest_json(["rows of a function", code, dict(params), PIECE_BYTES])


def known_rows(stores: Stores, function: Callable[..., Any], params: Mapping[str, Any]) -> bool:
    """Whether `spooled` would not have to run the function."""
    taken = {each: params[each] for each in names_of(function, params)[0]}
    with stores.meta.read() as meta:
        memory = meta.recall(_rows_key(identity(function).digest, taken))
    return memory is not None and all(stores.blobs.exists(piece[1]) for piece in memory["pieces"])


def _spool(blobs: Blobs, given: Any, entry: str) -> Iterator[tuple[str, str, int, int, str, int]]:
    first = 0
    waiting: list[pa.Table] = []
    for block in Blocks(given):
        waiting.append(block)
        if sum(each.nbytes for each in waiting) >= PIECE_BYTES:
            yield _piece(blobs, pa.concat_tables(waiting), entry, first)
            first += sum(each.num_rows for each in waiting)
            waiting = []
    if waiting:
        yield _piece(blobs, pa.concat_tables(waiting), entry, first)


def _piece(
    blobs: Blobs, table: pa.Table, entry: str, first: int
) -> tuple[str, str, int, int, str, int]:
    return entry, put_table(blobs, table), table.num_rows, table.nbytes, "arrow", first
