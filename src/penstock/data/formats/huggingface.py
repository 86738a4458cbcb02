"""Hugging Face datasets: folders that `save_to_disk` wrote, and `datasets.Dataset` objects.

A folder is Arrow streams and JSON, so it is read without the package. An object that lies in such
streams (most do) is read from them, too; one that only this process has is read from memory, and
then other processes cannot.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.base.errors import BadInput, CannotTravel
from penstock.base.hashing import Hasher
from penstock.base.nearest import did_you_mean
from penstock.data.formats.arrow import ArrowSource
from penstock.data.formats.base import as_type, bare, blocks, meanings_of, with_features
from penstock.data.formats.files import File
from penstock.data.formats.folders import Folder
from penstock.data.formats.listing import Given
from penstock.data.formats.port import (
    BLOCK_BYTES,
    PIECE_BYTES,
    BadRecord,
    Block,
    Input,
    InputSource,
)

_DICT, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"


def is_folder(folder: Folder) -> bool:
    """Whether `save_to_disk` wrote it."""
    return folder.has(_DICT) or (folder.has(_STATE) and folder.has(_INFO))


class HuggingFaceSource(ArrowSource):
    """`open_source("saved", split="train")`; without a split all of them, told apart by the names
    of their inputs ("train/data-00000-of-00002.arrow")."""

    format = "huggingface"

    def __init__(
        self,
        given: Given,
        *,
        columns: Sequence[str] | None = None,
        cast: Mapping[str, str] | None = None,
        piece_bytes: int = PIECE_BYTES,
        split: str | None = None,
    ) -> None:
        super().__init__(given, columns=columns, cast=cast, piece_bytes=piece_bytes)
        self._split = split

    def files(self) -> list[File]:
        root = Folder.of(self.given)
        if root is None or not is_folder(root):
            raise BadInput(
                f"{self.given} is no folder that save_to_disk wrote", "Give the folder itself."
            )
        names = [name for below in self._below(root) for name in _streams(root, below)]
        by_uri = {root.uri(name): name for name in names}
        listed = Given(list(by_uri), "/").files()
        found = [File(by_uri[each.uri], each.uri, each.size, each.stamp) for each in listed]
        return sorted(found, key=lambda each: each.name)

    def _below(self, root: Folder) -> list[str]:
        """Prefixes of the names of the folders that hold streams."""
        if not root.has(_DICT):
            if self._split is not None:
                raise BadInput(f"{root} has no splits", "Leave split away.")
            return [""]
        splits = sorted(_json(root, _DICT)["splits"])
        if self._split is None:
            return [f"{each}/" for each in splits]
        if self._split not in splits:
            raise BadInput(
                f'{root} has no split "{self._split}"', did_you_mean(self._split, splits)
            )
        return [f"{self._split}/"]


def _streams(root: Folder, below: str) -> list[str]:
    state = _json(root, below + _STATE)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise BadInput(
            f"{root}/{below} was saved with a selection of rows",
            "Save it again after flatten_indices().",
            path=f"{root}/{below}",
        )
    names = [str(each["filename"]) for each in state["_data_files"]]
    for name in names:
        if Path(name).name != name:
            raise BadInput(f"{root}/{below}{_STATE} names a file outside of its folder: {name}", "")
    return [below + name for name in names]


def _json(root: Folder, name: str) -> dict[str, Any]:
    path = f"{root}/{name}"
    try:
        found = json.loads(root.read(name))
        if isinstance(found, dict):
            return found
        reason = "it is no object"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise BadInput(f"{path} cannot be read: {reason}", "Save the dataset again.", path=path)


class ObjectSource(InputSource):
    """A `datasets.Dataset` that only this process has."""

    format = "huggingface-object"

    def __init__(self, given: Any) -> None:
        self._given = given.with_format("arrow")
        features = given.features.to_dict()
        self._schema = with_features(bare(given.features.arrow_schema), features)

    @property
    def meanings(self) -> dict[str, str]:
        return meanings_of(self._schema)

    def spec(self) -> dict[str, Any]:
        raise CannotTravel(
            "this Hugging Face dataset lies in this process's memory",
            'Save it and give the folder: dataset.save_to_disk("saved").',
        )

    def how(self) -> dict[str, Any]:
        return {"format": self.format, "types": [str(field) for field in self._schema]}

    def inputs(self) -> Sequence[Input]:
        size = int(self._given.data.nbytes)
        return [Input("dataset", f"memory:{id(self._given)}", size, "")]

    def digest(self, input: Input) -> str:
        hasher = Hasher()
        for block in self.read(input):
            assert isinstance(block, Block)
            for batch in block.table.to_batches():
                hasher.update(memoryview(batch.serialize()))
        return hasher.digest

    def read(self, input: Input) -> Iterator[Block | BadRecord]:
        rows = len(self._given)
        step = max(1, min(65_536, BLOCK_BYTES * rows // max(1, input.size)))
        for start in range(0, rows, step):
            found = self._given[start : start + step]
            arrays = [as_type(found[field.name], field.type) for field in self._schema]
            table = pa.table(arrays, schema=self._schema)
            yield from blocks(table, lambda row, start=start: f"row {start + row}")  # type: ignore[misc]


def from_object(given: Any, options: Mapping[str, Any]) -> InputSource:
    """The source for a `datasets.Dataset`; options are those of the format arrow."""
    if isinstance(given, Mapping) or not hasattr(given, "cache_files"):
        raise BadInput(
            f"{type(given).__name__} is not one dataset of Hugging Face",
            'Give one split, as in dataset["train"]; streams are saved first.',
        )
    files = [str(each["filename"]) for each in given.cache_files]
    if files and getattr(given, "_indices", None) is None:
        return ArrowSource(Given(files, str(Path.cwd())), **options)
    if options:
        raise BadInput(
            f"{', '.join(options)}: not for a dataset in memory", "Select and cast with datasets."
        )
    return ObjectSource(given)
