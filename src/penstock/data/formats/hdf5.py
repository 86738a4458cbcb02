"""HDF5 through h5py (the extra `hdf5`); pieces are rows, or groups where each is an episode."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from penstock.base.errors import BadInput, MissingExtra
from penstock.data.formats.arrays import ArraysSource
from penstock.data.formats.files import file_name, of_the_system, opened
from penstock.data.formats.hdf5_heaps import Heaps
from penstock.data.formats.port import Input


class Hdf5Source(ArraysSource):
    """`open_source("demos.hdf5")`; slices are read where they lie, never the whole file."""

    format = "hdf5"
    suffixes = (".h5", ".hdf5", ".hdf")

    @cached_property
    def _heaps(self) -> dict[int, Heaps]:
        """Of the files that are open now."""
        return {}

    def check(self, array: Any, first: int, end: int) -> None:
        self._heaps[array.file.id.id].check(array, first, end)

    @contextmanager
    def open_root(self, input: Input) -> Generator[Any]:
        h5py = _h5py()
        with opened(input) as stream:
            try:
                with h5py.File(stream, "r") as file:
                    self._heaps[file.id.id] = Heaps(file, stream)
                    try:
                        yield file
                    finally:
                        del self._heaps[file.id.id]
            except (OSError, RuntimeError, KeyError, ValueError) as error:
                if of_the_system(error):
                    raise
                raise BadInput(
                    f"{file_name(input)} is no whole HDF5 file: {_said(error)} "
                    f"(it has {input.size} bytes; read up to byte {stream.tell()})",
                    "Write or copy it again, or leave it out.",
                    path=input.uri,
                    offset=stream.tell(),
                ) from None

    def children(self, group: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        h5py = _h5py()
        found = {_text(key): group[key] for key in group}
        return (
            {key: each for key, each in found.items() if isinstance(each, h5py.Dataset)},
            {key: each for key, each in found.items() if isinstance(each, h5py.Group)},
        )


def _text(key: str | bytes) -> str:
    """h5py gives names that are not UTF-8 as bytes."""
    return key if isinstance(key, str) else key.decode()


def _said(error: Exception) -> str:
    return str(error).splitlines()[0].strip("'\"")


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise MissingExtra(
            "reading HDF5 needs h5py", 'Install it: pip install "penstock[hdf5]".', extra="hdf5"
        ) from None
    return h5py
