"""Checkpoints as files that others read, and such files as states: torch, safetensors, DCP.

Nothing here runs code from a file: `torch.load` with weights_only, JSON, and of DCP's index, which
is a pickle, only the dozen classes that an index consists of.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from penstock.base.errors import BadInput, CannotTravel
from penstock.base.nearest import did_you_mean

Format = Literal["torch", "safetensors", "dcp"]
States = dict[str, Any]  # name of a tracked object -> its state


def check(text: str) -> Format:
    """Raises BadInput, naming the nearest."""
    for each in get_args(Format):
        if text == each:
            return each  # type: ignore[no-any-return]
    raise BadInput(f'"{text}" is no format', did_you_mean(text, get_args(Format)))


def guess(path: Path) -> Format:
    """By what is there: a folder is DCP's, a name may end in .safetensors, all else is torch's."""
    if path.is_dir():
        return "dcp"
    return "safetensors" if path.suffix == ".safetensors" else "torch"


def write(states: States, path: Path, form: Format) -> None:
    """Write a file, or a folder of DCP. Raises CannotTravel where a format cannot hold it."""
    writers: dict[Format, Callable[[States, Path], None]] = {
        "torch": _write_torch,
        "safetensors": _write_safetensors,
        "dcp": _write_dcp,
    }
    writers[form](states, path)


def read(path: Path, form: Format) -> States:
    """The states in it; of bare weights the one state has the name "model".

    Raises BadInput when it is no such file, or holds something else.
    """
    readers: dict[Format, Callable[[Path], Any]] = {
        "torch": _read_torch,
        "safetensors": _read_safetensors,
        "dcp": _read_dcp,
    }
    try:
        found = readers[form](path)
    except Exception as error:  # noqa: BLE001 - whatever a foreign file makes its reader raise
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(
            f"{path} cannot be read as {form}: {first}",
            "Name the format it has: --format torch, safetensors or dcp. Files that need code to "
            "be read are refused: save state dictionaries.",
            path=str(path),
        ) from None
    if not isinstance(found, Mapping) or not found:
        raise BadInput(
            f"{path} holds a {type(found).__name__}, no states",
            "Save a state dictionary, or a dictionary of several.",
            path=str(path),
        )
    bare = all(isinstance(value, torch.Tensor) for value in found.values())
    return {"model": dict(found)} if bare else {str(key): value for key, value in found.items()}


def models(states: States) -> dict[str, dict[str, torch.Tensor]]:
    """Those states that are weights: tensors by name, nothing else."""
    return {
        name: dict(state)
        for name, state in states.items()
        if isinstance(state, Mapping)
        and state
        and all(isinstance(value, torch.Tensor) for value in state.values())
    }


def _write_torch(states: States, path: Path) -> None:
    torch.save(states, path)
    try:
        torch.load(path, weights_only=True, map_location="meta")
    except pickle.UnpicklingError as error:
        path.unlink()
        raise CannotTravel(
            f"torch.load(weights_only=True) would refuse it: {str(error).splitlines()[0]}",
            "Export as safetensors (weights alone), or keep NumPy arrays out of the state.",
        ) from None


def _read_torch(path: Path) -> Any:
    return torch.load(path, weights_only=True, map_location="cpu")


def _write_safetensors(states: States, path: Path) -> None:
    from safetensors.torch import save_file

    found = models(states)
    if not found:
        raise CannotTravel(
            "the checkpoint holds no model: safetensors take weights alone",
            "Export it as torch or dcp.",
            states=sorted(states),
        )
    one = len(found) == 1
    weights = {
        key if one else f"{name}.{key}": value.clone(memory_format=torch.contiguous_format)
        for name, state in found.items()
        for key, value in state.items()
    }
    save_file(weights, path, metadata={"format": "pt"})


def _read_safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(path)


def _write_dcp(states: States, path: Path) -> None:
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    with _quiet():
        save(states, storage_writer=FileSystemWriter(path), no_dist=True)


def _read_dcp(path: Path) -> Any:
    from torch.distributed.checkpoint._traverse import set_element
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

    class Planner(_EmptyStateDictLoadPlanner):
        """Plain values without code."""

        def load_bytes(self, read_item: Any, value: Any) -> None:
            found = torch.load(value, weights_only=True)
            self.state_dict[read_item.dest_index.fqn] = found
            if self.flatten_state_dict:
                place = self.mappings[read_item.dest_index.fqn]
                set_element(self.original_state_dict, place, found)

    class Reader(FileSystemReader):
        """The index without code."""

        def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
            with (path / ".metadata").open("rb") as file:
                found = _IndexUnpickler(file).load()
            if getattr(found, "storage_meta", None) is not None:
                found.storage_meta.load_id = self.load_id
            return found

    states: States = {}
    with _quiet():
        planner = Planner()  # type: ignore[no-untyped-call]
        try:
            _load_state_dict(states, Reader(path), planner=planner, no_dist=True)
        except CheckpointException as error:  # no Exception of Python's, and without a first line
            raise ValueError(str(next(iter(error.failures.values()))[0])) from None
    return states


_INDEX = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size"},
    "collections": {"OrderedDict"},
    "pathlib": {"PosixPath", "PurePosixPath"},
}


class _IndexUnpickler(pickle.Unpickler):
    """Knows what DCP's index consists of, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        known = name in _INDEX.get(module, ())
        if known or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"its index wants {module}.{name}")


@contextmanager
def _quiet() -> Iterator[None]:
    """DCP warns that it is not distributed; that is as it should be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
