"""The reading side: segments and sealed blobs back as Arrow tables, also while ranks write."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.base.errors import BadInput, Damaged
from penstock.base.hashing import is_digest
from penstock.blobs.port import Blobs
from penstock.signals import segment
from penstock.signals.segment import Cursor, Head, Record

if TYPE_CHECKING:
    import pyarrow as pa

Source = Path | str
"""A folder of segments, one segment, or the digest of a sealed one."""

_SEGMENT_KEY = b"penstock.segment"


@dataclass(slots=True)
class Piece:
    """What one segment held when it was read."""

    name: str
    head: Head
    records: list[Record]


def read_scalars(source: Source | Sequence[Source], blobs: Blobs | None = None) -> pa.Table:
    """Scalars as they were emitted, in order of generation, rank and time of emission.

    source   folder, segments and digests of sealed ones, mixed at will: a segment that comes
             twice counts once, at its longest
    blobs    needed for digests
    returns  step int64, name string, value float64, rank int32, generation int64, at float64
             (seconds since 1970)
    Raises NotFound, Damaged for a digest; a torn end of a segment is no error.
    """
    return _select(source, blobs, segment.SCALAR, ("value", "rank", "generation", "at"))


def read_spans(source: Source | Sequence[Source], blobs: Blobs | None = None) -> pa.Table:
    """Spans: step int64, name string, start float64, end float64, rank int32, generation int64."""
    table = _select(source, blobs, segment.SPAN, ("at", "value", "rank", "generation"))
    return table.rename_columns(["step", "name", "start", "end", "rank", "generation"])


def read_texts(source: Source | Sequence[Source], blobs: Blobs | None = None) -> pa.Table:
    """Texts: step int64, name string, text string, rank int32, generation int64, at float64."""
    return _select(source, blobs, segment.TEXT, ("text", "rank", "generation", "at"))


def reduce_scalars(table: pa.Table) -> pa.Table:
    """One value per step and name, as people want to see it.

    Of each (step, name) the highest generation counts, so that what was computed again after a
    crash replaces what was lost; of each rank in it the value told last; then the mean over ranks.

    returns  step int64, name string, value float64; sorted by step, then name
    """
    import numpy as np
    import pyarrow as pa

    step = table["step"].to_numpy()
    encoded = table["name"].combine_chunks().dictionary_encode()
    names = np.array(encoded.dictionary.to_pylist(), dtype=object)
    by_text = np.argsort(names, kind="stable")
    place = np.empty_like(by_text)
    place[by_text] = np.arange(len(names))
    name = place[encoded.indices.to_numpy(zero_copy_only=False)] if len(step) else step
    generation, rank = table["generation"].to_numpy(), table["rank"].to_numpy()
    value = table["value"].to_numpy()

    order = np.lexsort((rank, generation, name, step))  # stable: told last comes last
    step, name, generation = step[order], name[order], generation[order]
    rank, value = rank[order], value[order]
    group = _starts(step, name)
    newest = np.repeat(generation[_ends(group, len(step))], np.diff(group, append=len(step)))
    keep = (generation == newest) & _last_of(step, name, generation, rank)
    step, name, value = step[keep], name[keep], value[keep]
    group = _starts(step, name)
    counts = np.diff(group, append=len(step))
    sums = np.add.reduceat(value, group) if len(value) else value
    return pa.table(
        {
            "step": pa.array(step[group], pa.int64()),
            "name": pa.array(names[by_text][name[group]].tolist(), pa.string()),
            "value": pa.array(sums / counts, pa.float64()),
        }
    )


def _starts(*keys: Any) -> Any:
    """Indices at which a group of equal keys begins, in sorted columns."""
    import numpy as np

    if len(keys[0]) == 0:
        return np.array([], dtype=np.int64)
    changed = np.zeros(len(keys[0]), dtype=bool)
    changed[0] = True
    for key in keys:
        changed[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(changed)


def _ends(starts: Any, length: int) -> Any:
    """Index of the last row of each group."""
    import numpy as np

    return np.append(starts[1:], length)[: len(starts)] - 1


def _last_of(*keys: Any) -> Any:
    """True at the last row of each group of equal keys."""
    import numpy as np

    last = np.zeros(len(keys[0]), dtype=bool)
    last[_ends(_starts(*keys), len(keys[0]))] = True
    return last


def read_segment(path: Path, cursor: Cursor | None = None) -> Piece | None:
    """Records of a segment from the cursor on; None when it has no header yet, or is gone.

    Reads, never maps: a writer cuts its file on close, and a map would die of that.
    """
    cursor = cursor or Cursor()
    try:
        with path.open("rb") as stream:
            head = segment.read_head(stream.read(segment.HEADER_BYTES), str(path))
            if head is None:
                return None
            stream.seek(cursor.offset)
            data = stream.read()
    except FileNotFoundError:
        return None
    local = Cursor(0, cursor.names)
    records = list(segment.read_records(data, local))
    cursor.offset += local.offset
    return Piece(path.stem, head, records)


def to_table(piece: Piece) -> pa.Table:
    """All records of a segment in one table, its name and head in the schema's metadata.

    kind int8 (as in `segment`), step int64, name dictionary, value float64, at float64, text,
    rank int32, generation int64
    """
    import pyarrow as pa

    records, count = piece.records, len(piece.records)
    return pa.table(
        {
            "kind": pa.array([r.kind for r in records], pa.int8()),
            "step": pa.array([r.step for r in records], pa.int64()),
            "name": pa.array([r.name for r in records], pa.string()).dictionary_encode(),
            "value": pa.array([r.value for r in records], pa.float64()),
            "at": pa.array([r.at for r in records], pa.float64()),
            "text": pa.array([r.text for r in records], pa.string()),
            "rank": pa.array([piece.head.rank] * count, pa.int32()),
            "generation": pa.array([piece.head.generation] * count, pa.int64()),
        },
        metadata={_SEGMENT_KEY: piece.name.encode(), b"penstock.run": piece.head.run_id.encode()},
    )


def _select(
    source: Source | Sequence[Source], blobs: Blobs | None, kind: int, columns: Iterable[str]
) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    types = {"value": pa.float64(), "at": pa.float64(), "text": pa.string()}
    types |= {"step": pa.int64(), "name": pa.string(), "rank": pa.int32()}
    types |= {"generation": pa.int64()}
    schema = pa.schema([(column, types[column]) for column in ("step", "name", *columns)])
    found = [schema.empty_table()]
    for table in _tables(source, blobs):
        rows = table.filter(pc.equal(table["kind"], kind)).select(schema.names)
        found.append(rows.cast(schema))
    return pa.concat_tables(found).combine_chunks()


def _tables(source: Source | Sequence[Source], blobs: Blobs | None) -> list[pa.Table]:
    """Tables of every segment that is meant, each once, in the order of their names."""
    longest: dict[str, pa.Table] = {}
    for one in [source] if isinstance(source, str | Path) else source:
        for name, table in _open(one, blobs):
            if name not in longest or table.num_rows > longest[name].num_rows:
                longest[name] = table
    return [longest[name] for name in sorted(longest)]


def _open(source: Source, blobs: Blobs | None) -> list[tuple[str, pa.Table]]:
    if isinstance(source, str) and is_digest(source):
        if blobs is None:
            raise BadInput(f"{source} needs the blob store to be read", "Pass `blobs`.")
        return [_unseal(source, blobs)]
    path = Path(source)
    paths = [path] if path.suffix == segment.SUFFIX else segment.list_segments(path)
    pieces = [piece for piece in map(read_segment, paths) if piece is not None]
    return [(piece.name, to_table(piece)) for piece in pieces]


def _unseal(digest: str, blobs: Blobs) -> tuple[str, pa.Table]:
    import pyarrow as pa

    data = blobs.get(digest)
    try:
        with pa.ipc.open_file(io.BytesIO(data)) as reader:
            table = reader.read_all()
        return table.schema.metadata[_SEGMENT_KEY].decode(), table
    except (pa.ArrowInvalid, KeyError, TypeError) as error:
        raise Damaged(
            f"blob {digest} does not hold sealed signals: {error}",
            "Was the digest meant for something else?",
            digest=digest,
        ) from None
