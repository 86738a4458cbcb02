"""Zarr stores (folders, formats 2 and 3) through zarr (the extra `zarr`); pieces are rows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.base.errors import BadInput, MissingExtra
from penstock.data.formats.arrays import ArraysSource
from penstock.data.formats.files import File, changed, file_name
from penstock.data.formats.listing import Given
from penstock.data.formats.port import Input

_MARKS = ("zarr.json", ".zgroup", ".zarray")


def stores(given: Given) -> list[Path]:
    """The Zarr stores that were named, or that lie in the one folder that was."""
    found = [path for path in given.paths() if _is_store(path)]
    only = given.only()
    if not found and only is not None and only.is_dir():
        found = [path for path in sorted(only.iterdir()) if _is_store(path)]
    return found


def _is_store(path: Path) -> bool:
    return path.is_dir() and any((path / mark).is_file() for mark in _MARKS)


class ZarrSource(ArraysSource):
    """`open_source("replay.zarr", group="data")`; only the chunks that hold wanted rows are read.

    A store's stamp is made of all its files' sizes and times. A chunk without a file is what the
    format says it is: the array's fill value.
    """

    format = "zarr"
    suffixes = (".zarr",)

    def files(self) -> list[File]:
        found = stores(self.given)
        if not found:
            raise BadInput(
                f"{self.given} is no Zarr store (a folder with zarr.json or .zgroup)",
                "Give the store's own folder; stores elsewhere are not read in place yet.",
            )
        names = [path.name for path in found]
        alike = len(set(names)) < len(names)
        return [File(str(p) if alike else p.name, str(p), *_look(p)) for p in found]

    @contextmanager
    def open_root(self, input: Input) -> Generator[Any]:
        zarr = _zarr()
        _same(input)
        try:
            found = zarr.open(store=input.uri, mode="r")
            yield {"data": found} if isinstance(found, zarr.Array) else found
        except BadInput:
            _same(input)
            raise
        except Exception as error:  # noqa: BLE001 - codecs raise what they like
            _same(input)
            raise BadInput(
                f"{file_name(input)} cannot be read: {type(error).__name__}: {error}",
                "Write or copy the store again, or leave it out.",
                path=input.uri,
            ) from None
        _same(input)

    def children(self, group: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        if isinstance(group, dict):
            return group, {}
        return dict(group.arrays()), dict(group.groups())


def _look(path: Path) -> tuple[int, str]:
    """(bytes, stamp) of a store: one look at every file."""
    size = 0
    state = hashlib.sha256()
    for folder, names, files in os.walk(path):
        names.sort()
        for name in sorted(files):
            found = Path(folder, name).stat()
            size += found.st_size
            state.update(f"{folder}/{name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return size, state.hexdigest()[:32]


def _same(input: Input) -> None:
    if not Path(input.uri).is_dir():
        raise BadInput(
            f"{input.uri} is not there any more", "List the files again.", path=input.uri
        )
    stamp = _look(Path(input.uri))[1]
    if stamp != input.stamp:
        raise changed(input, stamp)


def _zarr() -> Any:
    try:
        import zarr
    except ImportError:
        raise MissingExtra(
            "reading Zarr needs zarr", 'Install it: pip install "penstock[zarr]".', extra="zarr"
        ) from None
    return zarr
