"""However large a file is, a block is small, and what is mapped is not copied."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.data.formats import BLOCK_BYTES, Block, lines, open_source

from .examples import tar

MIB = 1 << 20


def _parquet(folder: Path) -> Path:
    """One row group; text of 1 KiB that a dictionary makes small in the file."""
    texts = pa.array(["x" * 1024] * 50_000)
    pq.write_table(pa.table({"t": texts, "x": np.random.rand(50_000)}), folder / "a.parquet")
    return folder / "a.parquet"


def _arrow(folder: Path) -> Path:
    """One record batch."""
    table = pa.table({"x": np.zeros(8 * MIB)})
    with pa.ipc.new_file(folder / "a.arrow", table.schema) as out:
        out.write_table(table)
    return folder / "a.arrow"


def _csv(folder: Path) -> Path:
    """Two bytes a row become eight."""
    (folder / "a.csv").write_bytes(b"a\n" + b"1\n" * (10 * MIB))
    return folder / "a.csv"


def _jsonl(folder: Path) -> Path:
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n' * (4 * MIB), 1))
    return folder / "a.jsonl.gz"


def _hdf5(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as out:
        out.create_dataset("x", (64, MIB), "u1", chunks=(1, MIB), fillvalue=1)
    return folder / "a.h5"


def _tar(folder: Path) -> Path:
    return tar(folder / "a.tar", ((f"{i:03d}.bin", bytes(MIB)) for i in range(64)))


def _texts(folder: Path) -> Path:
    for i in range(64):
        (folder / f"{i:02d}.txt").write_bytes(b"x" * MIB)
    return folder


LARGE = [_parquet, _arrow, _csv, _jsonl, _hdf5, _tar, _texts]


@pytest.mark.parametrize("make", LARGE)
def test_no_block_is_larger_than_its_bound(make: Callable[[Path], Path], tmp_path: Path) -> None:
    source = open_source(make(tmp_path), **({"columns": ["bin"]} if make is _tar else {}))
    largest = total = 0
    for item in source.read_all(source.inputs()):
        assert isinstance(item, Block)
        largest = max(largest, item.table.nbytes)
        total += item.table.nbytes
    assert total > 1.5 * BLOCK_BYTES
    assert largest <= BLOCK_BYTES * 1.01  # offsets and validity beside the values


def test_a_row_larger_than_a_block_is_a_block(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", [(f"{i}.bin", bytes(20 * MIB)) for i in range(3)])
    source = open_source(path)
    rows = [item.table.num_rows for item in source.read(source.inputs()[0])]  # type: ignore[union-attr]
    assert rows == [1, 1, 1]


def test_lines_are_read_a_chunk_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    plain = lines.Reader.read

    def counted(self: lines.Reader, size: int) -> bytes:
        asked.append(size)
        return plain(self, size)

    monkeypatch.setattr(lines.Reader, "read", counted)
    source = open_source(_csv(tmp_path))
    for _ in source.read(source.inputs()[0]):
        pass
    assert max(asked) == lines.CHUNK


def test_arrow_blocks_are_views_of_the_mapped_file(tmp_path: Path) -> None:
    source = open_source(_arrow(tmp_path))
    before = pa.total_allocated_bytes()
    held = list(source.read(source.inputs()[0]))
    assert sum(item.table.nbytes for item in held) == 64 * MIB  # type: ignore[union-attr]
    assert pa.total_allocated_bytes() - before < MIB
