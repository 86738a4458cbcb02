"""One small example of each format, and how to read a source to its end."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from penstock.data.formats import BadRecord, Block, Input, InputSource, open_source

ROWS = 400


@dataclass
class Example:
    """path to open, options to open it with, files that hold the data, how many rows they have;
    piece: bytes of a piece that cut it into a few."""

    path: Path
    files: list[Path]
    options: dict[str, Any] = field(default_factory=dict)
    rows: int = ROWS
    piece: int = 1500

    def open(self, **more: Any) -> InputSource:
        return open_source(self.path, **self.options, **more)


@dataclass
class Got:
    tables: list[pa.Table]
    bad: list[BadRecord]
    places: list[str]

    @property
    def table(self) -> pa.Table:
        return pa.concat_tables(self.tables)


def elsewhere(source: InputSource) -> InputSource:
    """The source as another process opens it."""
    return open_source(json.loads(json.dumps(source.spec())))


def read(source: InputSource, inputs: Iterable[Input] | None = None) -> Got:
    """Everything, through the specs that a worker gets."""
    got = Got([], [], [])
    inputs = source.inputs() if inputs is None else inputs
    given = [Input.from_spec(json.loads(json.dumps(each.spec()))) for each in inputs]
    for item in elsewhere(source).read_all(given):
        if isinstance(item, Block):
            got.tables.append(item.table)
            got.places.append(item.place(item.table.num_rows - 1))
        else:
            got.bad.append(item)
    return got


def table(rows: int = ROWS) -> pa.Table:
    ids = np.arange(rows)
    return pa.table({"id": ids, "x": ids / 3, "name": [f"näme {i}" for i in ids]})


def jpeg(value: int, size: tuple[int, int] = (16, 12)) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    rng = np.random.default_rng(value)
    Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    with tarfile.TarFile(path, "w") as out:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    return path


def _parquet(folder: Path) -> Example:
    path = folder / "rows.parquet"
    pq.write_table(table(), path, row_group_size=50, write_page_checksum=True)
    return Example(path, [path])


def _csv(folder: Path) -> Example:
    path = folder / "rows.csv"
    pacsv.write_csv(table(), path)
    return Example(path, [path])


def _jsonl(folder: Path) -> Example:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in table().to_pylist()))
    return Example(path, [path])


def _jsonl_gz(folder: Path) -> Example:
    path = folder / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(_jsonl(folder).path.read_bytes()))
    (folder / "rows.jsonl").unlink()
    return Example(path, [path])


def _arrow(folder: Path) -> Example:
    path = folder / "rows.arrow"
    with pa.ipc.new_file(path, table().schema) as out:
        out.write_table(table(), max_chunksize=50)
    return Example(path, [path])


def _stream(folder: Path) -> Example:
    path = folder / "rows.arrows"
    with pa.ipc.new_stream(path, table().schema) as out:
        out.write_table(table(), max_chunksize=50)
    return Example(path, [path])


def _webdataset(folder: Path) -> Example:
    members = [
        (f"a/{i:03d}.{end}", data)
        for i in range(ROWS)
        for end, data in (("bin", bytes([i % 256]) * 100), ("cls", b"%d" % i), ("txt", b"t"))
    ]
    path = tar(folder / "rows.tar", members)
    return Example(path, [path])


def _images(folder: Path) -> Example:
    files = []
    for i in range(20):
        path = folder / "pictures" / ("cat" if i % 2 else "dog") / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(i))
        files.append(path)
    return Example(folder / "pictures", files, rows=20)


def _hdf5(folder: Path) -> Example:
    import h5py

    path = folder / "rows.h5"
    with h5py.File(path, "w") as out:
        out["id"] = np.arange(ROWS)
        out["obs/image"] = np.arange(ROWS * 6, dtype=np.uint8).reshape(ROWS, 2, 3)
        out["text"] = [f"t{i}" for i in range(ROWS)]
    return Example(path, [path])


def _episodes(folder: Path) -> Example:
    import h5py

    path = folder / "demos.hdf5"
    with h5py.File(path, "w") as out:
        for i in range(20):
            out[f"data/demo_{i}/action"] = np.full((20, 3), i, np.float32)
            out[f"data/demo_{i}/obs/image"] = np.zeros((20, 2, 2), np.uint8)
    return Example(path, [path])


def _zarr(folder: Path) -> Example:
    import zarr

    path = folder / "rows.zarr"
    root = zarr.open_group(str(path), mode="w")
    root.create_array("id", shape=(ROWS,), dtype="i8", chunks=(50,))[:] = np.arange(ROWS)
    root.create_array("x", shape=(ROWS, 3), dtype="f4", chunks=(50, 3))[:] = 1.5
    return Example(path, [each for each in sorted(path.rglob("*")) if each.is_file()], piece=500)


def _text(folder: Path) -> Example:
    files = []
    for i in range(30):
        path = folder / "texts" / f"{i:02d}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"text ü {i}\n" * 3)
        files.append(path)
    return Example(folder / "texts", files, rows=30)


def _lines(folder: Path) -> Example:
    path = folder / "rows.txt"
    path.write_text("".join(f"line ü {i}\n" for i in range(ROWS)))
    return Example(path, [path], {"format": "lines"})


EXAMPLES: dict[str, Callable[[Path], Example]] = {
    "parquet": _parquet,
    "csv": _csv,
    "jsonl": _jsonl,
    "jsonl.gz": _jsonl_gz,
    "arrow": _arrow,
    "stream": _stream,
    "webdataset": _webdataset,
    "images": _images,
    "hdf5": _hdf5,
    "episodes": _episodes,
    "zarr": _zarr,
    "text": _text,
    "lines": _lines,
}
PIECED = ["parquet", "csv", "jsonl", "arrow", "webdataset", "hdf5", "episodes", "zarr", "lines"]
