"""A version as files that others read, in a folder that appears when all of it is there."""

from __future__ import annotations

import glob
import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from penstock.base.errors import BadInput, Conflict
from penstock.base.files import os_errors, sync_folder
from penstock.base.process import Identity
from penstock.data.dataset import Dataset
from penstock.data.formats.writers import FILE_BYTES, write_files
from penstock.data.manifest import read_manifest
from penstock.data.reading import resolve
from penstock.records.looks import Exported

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores

Progress = Callable[[int, int], None]


def export(
    stores: Stores,
    reference: str,
    folder: Path,
    format: str = "parquet",
    *,
    columns: Sequence[str] | None = None,
    file_bytes: int = FILE_BYTES,
    on_progress: Progress | None = None,
) -> Exported:
    """Write a version, a subfolder per split, or one split into the folder itself.

    folder       must not be there, or be empty; it appears whole, or not at all
    format       parquet, arrow, csv, jsonl or webdataset
    columns      names; default: all
    on_progress  called with (rows written, rows in all)

    Raises NotFound, BadInput (a format that cannot hold a column), Conflict, Damaged, DiskFull,
    ReadOnly; nothing is left then.
    """
    with stores.meta.read() as meta:
        version, split = resolve(meta, reference)
    manifest = read_manifest(stores.blobs, version.digest, version.reference)
    wanted = [split] if split else list(manifest.splits)
    parts = [
        Dataset(stores.blobs, manifest, f"{version.reference}:{name}", name, columns=columns)
        for name in wanted
    ]
    total = sum(map(len, parts))
    counted = _Counter(total, on_progress)
    folder = folder.expanduser().absolute()
    with _appears(folder) as scratch:
        for part in parts:
            where = scratch if len(parts) == 1 else scratch / part.split
            tables = counted(part)
            write_files(tables, part.columns, where, format, file_bytes=file_bytes)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    size = sum(path.stat().st_size for path in paths)
    named = f"{version.reference}:{split}" if split else version.reference
    return Exported(named, format, str(folder), [str(path) for path in paths], total, size)


class _Counter:
    """Passes tables on and tells how many rows went by."""

    def __init__(self, total: int, on_progress: Progress | None) -> None:
        self._done, self._total, self._tell = 0, total, on_progress

    def __call__(self, part: Dataset) -> Iterator[pa.Table]:
        for batch in part.to_batches():
            yield pa.Table.from_batches([batch])
            self._done += batch.num_rows
            if self._tell is not None:
                self._tell(self._done, self._total)


@contextmanager
def _appears(folder: Path) -> Iterator[Path]:
    """A folder beside the wanted one that takes its name when the block ends well.

    One that a dead process of this machine left is removed first.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(
            f"{folder} is there already",
            "Give a folder that is not there yet, or remove what is in it.",
            path=str(folder),
        )
    if not folder.name:
        raise BadInput(f"{folder} is no folder to export to", "Name one.", path=str(folder))
    start = f".{folder.name}.exporting."
    me = str(Identity.mine()).replace("/", ",")
    scratch = folder.with_name(start + me)
    with os_errors("exporting", folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(glob.escape(start) + "*"):
            if _is_dead(left.name.removeprefix(start)):
                shutil.rmtree(left, ignore_errors=True)
        scratch.mkdir()
    try:
        yield scratch
        with os_errors("exporting", folder.parent):
            with suppress(FileNotFoundError):
                folder.rmdir()  # an empty one gives way; what came meanwhile does not
            scratch.rename(folder)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_dead(holder: str) -> bool:
    try:
        return Identity.parse(holder.replace(",", "/")).is_dead() is True
    except ValueError:
        return False


def arrow_stream(data: Dataset) -> Iterator[bytes]:
    """A dataset as an Arrow IPC stream, in pieces; a schema comes with the first rows.

    Raises Damaged and Unavailable from the piece that meets it.
    """
    sink = _Pieces()
    with pa.ipc.new_stream(sink, data.arrow_schema) as writer:
        for batch in data.to_batches():
            writer.write_batch(batch)
            yield sink.taken()
    yield sink.taken()


class _Pieces(io.RawIOBase):
    """A file that gives away what was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)
