"""From what a user names to the source that reads it: format by extension, unless it is given."""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean
from penstock.data.formats import huggingface, lerobot, remote, zarr
from penstock.data.formats.base import FileSource
from penstock.data.formats.folders import Folder
from penstock.data.formats.listing import Given, is_pattern
from penstock.data.formats.port import InputSource

FORMATS = {
    "parquet": "parquet:ParquetSource",
    "csv": "csv:CsvSource",
    "jsonl": "jsonl:JsonLinesSource",
    "arrow": "arrow:ArrowSource",
    "webdataset": "webdataset:WebDatasetSource",
    "images": "images:ImagesSource",
    "hdf5": "hdf5:Hdf5Source",
    "zarr": "zarr:ZarrSource",
    "huggingface": "huggingface:HuggingFaceSource",
    "lerobot": "lerobot:LeRobotSource",
    "text": "text:TextFilesSource",
    "lines": "text:TextLinesSource",
}
SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    **dict.fromkeys((".arrow", ".feather", ".ipc", ".arrows"), "arrow"),
    **dict.fromkeys((".tar", ".tgz"), "webdataset"),
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp"), "images"),
    **dict.fromkeys((".tif", ".tiff", ".ppm", ".pgm"), "images"),
    **dict.fromkeys((".h5", ".hdf5", ".hdf"), "hdf5"),
    ".zarr": "zarr",
    **dict.fromkeys((".txt", ".text", ".md", ".rst", ".py", ".log"), "text"),
}
_FOLDERS = {"lerobot": lerobot.is_folder, "huggingface": huggingface.is_folder}
_COMPRESSED = {".gz", ".zst"}


def open_source(given: Any, format: str | None = None, **options: Any) -> InputSource:
    """A source of raw files, which are read where they are.

    given    a file, folder, glob, URL of an object store (`s3://…`), a list of them, or a
             dictionary: `spec()` of a source, or {"given": …, "format": …, and options}
    format   one of FORMATS; by default it follows from the extensions
    options  of the format: `columns` (which), `cast` (column -> Arrow type), `piece_bytes` and
             others, see the format's class

    Raises BadInput: missing files (all named), nothing found, extensions of several formats (all
    listed), an unknown format or option; MissingExtra: a package that the format needs.
    """
    if isinstance(given, InputSource):
        return given
    if isinstance(given, Mapping) and not hasattr(given, "cache_files"):
        return _from_dict(given, format, options)
    if type(given).__module__.split(".")[0] == "datasets":
        return huggingface.from_object(given, options)
    place = Given(_entries(given), str(Path.cwd()))
    return _make(format or _format_of(place), place, options)


def _from_dict(spec: Mapping[str, Any], format: str | None, options: dict[str, Any]) -> InputSource:
    if "given" not in spec:
        raise BadInput(
            f'a source given as a dictionary needs "given"; this has {sorted(map(str, spec))}',
            'Write it as {"given": "data/*.csv", "format": "csv"}, with options beside them.',
        )
    given = spec["given"]
    if isinstance(given, Mapping):
        made = _make(spec["format"], Given.from_spec(given), dict(spec.get("options") or {}))
        made.pin(spec.get("schema"))
        return made
    rest = {k: v for k, v in spec.items() if k not in ("given", "format", "options")}
    rest |= dict(spec.get("options") or {}) | options
    return open_source(given, format or spec.get("format"), **rest)


def _entries(given: Any) -> list[str]:
    if isinstance(given, str | os.PathLike):
        given = [given]
    if not isinstance(given, Sequence) or not all(isinstance(g, str | os.PathLike) for g in given):
        raise BadInput(
            f"{type(given).__name__} is not what raw files are named by",
            "Give a path, glob or URL, or a list of them.",
        )
    if not given:
        raise BadInput("an empty list of files was given", "Name at least one file.")
    return [os.fspath(each) for each in given]


def _make(format: str, place: Given, options: dict[str, Any]) -> FileSource:
    if format not in FORMATS:
        raise BadInput(f'there is no format "{format}"', did_you_mean(format, FORMATS))
    module, name = FORMATS[format].split(":")
    kind: type[FileSource] = getattr(import_module(f"penstock.data.formats.{module}"), name)
    known = list(inspect.signature(kind).parameters)[1:]
    for option in options:
        if option not in known:
            raise BadInput(f'{format} has no option "{option}"', did_you_mean(option, known))
    made = kind(place, **options)
    made.options = options
    return made


def _format_of(place: Given) -> str:
    folder = Folder.of(place)
    plain = any(map(_names_files, place.entries))
    if folder is not None and not plain:
        for name, is_folder in _FOLDERS.items():
            if is_folder(folder):
                return name
    if not plain and zarr.stores(place):
        return "zarr"
    files = place.peek()
    if not files:
        raise BadInput(f"there is no file in {place}", "Check the path.", given=place.entries)
    counts = Counter(suffix_of(file.name) for file in files)
    formats = {SUFFIXES.get(_bare(suffix)) for suffix in counts}
    if len(formats) == 1 and (only := formats.pop()) is not None:
        return only
    told = ", ".join(
        f"{count} {suffix or 'without extension'} ({SUFFIXES.get(_bare(suffix)) or 'unknown'})"
        for suffix, count in sorted(counts.items())
    )
    raise BadInput(
        f"the files in {place} are not of one known format: {told}",
        f"Give a glob such as *.csv, or format= one of {', '.join(FORMATS)}.",
        extensions=dict(counts),
    )


def _names_files(entry: str) -> bool:
    """Whether a URL, by its name alone, is no folder with a layout: saves asking the store."""
    name = remote.without_options(entry)
    known = SUFFIXES.get(_bare(suffix_of(name)))
    return remote.is_remote(entry) and (is_pattern(name) or known not in (None, "zarr"))


def suffix_of(name: str) -> str:
    """The extension in lower case, with the one before it where it tells of compression."""
    path = Path(name.lower())
    if path.suffix in _COMPRESSED:
        return Path(path.stem).suffix + path.suffix
    return path.suffix


def _bare(suffix: str) -> str:
    return "." + suffix.split(".")[1] if suffix.count(".") == 2 else suffix
