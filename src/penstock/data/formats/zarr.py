"""Zarr stores (formats 2 and 3, here or in an object store) through zarr (the extra `zarr`); pieces
are rows.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.base.errors import BadInput, MissingExtra
from penstock.data.formats import remote
from penstock.data.formats.arrays import ArraysSource
from penstock.data.formats.files import File, changed, file_name
from penstock.data.formats.folders import Folder
from penstock.data.formats.listing import Given, is_pattern
from penstock.data.formats.port import Input

_REMEMBERED = 64  # listings of far stores; beyond, they are listed again
_there: dict[tuple[str, str], dict[str, tuple[int, str]]] = {}  # (URL, stamp) -> its objects
_MARKS = ("zarr.json", ".zgroup", ".zarray")


def stores(given: Given) -> list[str]:
    """The Zarr stores that were named, or that lie in the one local folder that was."""
    found = [str(path) for path in given.paths() if _is_store(Folder(str(path)))]
    found += [each for each in given.entries if _is_far_store(each)]
    only = given.only()
    if not found and only is not None and only.is_dir():
        found = [str(path) for path in sorted(only.iterdir()) if _is_store(Folder(str(path)))]
    return found


def _is_store(folder: Folder) -> bool:
    return any(folder.has(mark) for mark in _MARKS)


def _is_far_store(entry: str) -> bool:
    far = remote.is_remote(entry) and not is_pattern(remote.without_options(entry))
    return far and _is_store(Folder(entry))


class ZarrSource(ArraysSource):
    """`open_source("replay.zarr", group="data")`; only the chunks that hold wanted rows are read.

    A store's stamp is made of all its files' sizes and times, of a far one of all its objects'
    ETags: it is listed before and after a piece is read. A chunk without a file is what the format
    says it is: the array's fill value.
    """

    format = "zarr"
    suffixes = (".zarr",)

    def files(self) -> list[File]:
        found = stores(self.given)
        if not found:
            raise BadInput(
                f"{self.given} is no Zarr store (a folder with zarr.json or .zgroup)",
                "Give the store's own folder, or its URL.",
            )
        names = [str(Folder(each)).rstrip("/").rpartition("/")[2] for each in found]
        alike = len(set(names)) < len(names)
        return [
            File(uri if alike else name, uri, *_look(uri))
            for name, uri in zip(names, found, strict=True)
        ]

    @contextmanager
    def open_root(self, input: Input) -> Generator[Any]:
        zarr = _zarr()
        _same(input)
        try:
            found = zarr.open(store=_store(input), mode="r")
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


def _store(input: Input) -> Any:
    """What zarr reads a store through."""
    if not remote.is_remote(input.uri):
        return input.uri
    from penstock.data.formats.zarr_remote import RemoteStore

    there = _there.get((input.uri, input.stamp))
    return RemoteStore(input.uri, remote.below(input.uri) if there is None else there)


def _look(uri: str) -> tuple[int, str]:
    """(bytes, stamp) of a store: one look at every file."""
    if remote.is_remote(uri):
        there = remote.below(uri)
        stamp = hashlib.sha256(repr(there).encode()).hexdigest()[:32]
        if len(_there) >= _REMEMBERED:
            _there.clear()
        _there[uri, stamp] = there
        return sum(size for size, _ in there.values()), stamp
    size = 0
    state = hashlib.sha256()
    for folder, names, files in os.walk(uri):
        names.sort()
        for name in sorted(files):
            found = Path(folder, name).stat()
            size += found.st_size
            state.update(f"{folder}/{name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return size, state.hexdigest()[:32]


def _same(input: Input) -> None:
    far = remote.is_remote(input.uri)
    if not far and not Path(input.uri).is_dir():
        raise BadInput(
            f"{input.uri} is not there any more", "List the files again.", path=input.uri
        )
    stamp = _look(input.uri)[1]
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
