"""A trained model made into a package: weights always, and every open format that it converts to.

Runs in a rank, on a copy: the model, its mode, its device and the random generators are as before,
so training goes on bit for bit as if nothing had been published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.base.errors import CannotTravel
from penstock.base.layout import Layout
from penstock.blobs.port import Blobs
from penstock.jobs.source import locate
from penstock.jobs.source import refs as source_refs
from penstock.records import to_data, to_json
from penstock.records.references import check_name
from penstock.registry import apart, onnx_file, program
from penstock.registry.binding import call
from penstock.registry.manifest import FORMAT, File, Package
from penstock.registry.outputs import named
from penstock.registry.signature import BATCH
from penstock.registry.trial import Trial, attempt

if TYPE_CHECKING:
    from torch import Tensor, nn

_KEPT_ROWS = 8  # of the example, for those who check a package later


@dataclass(frozen=True, slots=True)
class Packaged:
    """What `Writer.add_version("model", …)` needs.

    digest   of the manifest
    refs     every blob that the package needs, the manifest first
    summary  what lists show: signature, files, bytes, number of parameters, notes
    notes    what did not convert and what is published instead; empty when all is there
    """

    digest: str
    refs: list[str]
    summary: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def package(
    model: Any,
    example: Any,
    blobs: Blobs,
    layout: Layout | None = None,
    *,
    name: str,
    lineage: Mapping[str, Any] | None = None,
    inputs: Sequence[str] | None = None,
) -> Packaged:
    """Write a model's package into the blob store. Nothing refers to it yet: that is a commit.

    model    nn.Module, also inside DDP or torch.compile; sharded weights are refused
    example  a batch as the model gets it: dict of tensors, a tensor, or a tuple of tensors
    layout   for formats that are written to a file first; none of today's is
    inputs   entries of the example that go into `forward`; default: see `registry.binding`
    lineage  JSON-able; `why` reads "run" and "data", and "source" is the digest of the source
             snapshot, from which the class is imported where nothing else can be loaded

    The same model, example and lineage give the same digest in the same environment.
    Raises BadInput (example and model do not fit, outputs that are no tensors), CannotTravel
    (sharded or uncopyable), DiskFull, ReadOnly.
    """
    check_name(name, "model name")
    lineage = dict(lineage or {})
    made = _Files(blobs)
    with apart.generators_kept(), apart.plain_mode(), apart.quiet():
        own = apart.unwrap(model)
        copied = apart.copy_to_cpu(own)
        trial = attempt(copied, example, inputs)
        tied = made.weights(copied)
        made.converted(copied, trial)
        made.example(trial)
    if hooks := apart.dropped_hooks(own):
        made.notes.append(
            f"left out: hooks registered on the model ({hooks}), which its class does not have"
        )
    entry = _entry(own, made.notes)
    manifest = Package(
        format=FORMAT,
        name=name,
        signature=trial.signature,
        files=made.files,
        places=trial.places,
        entry=entry,
        source=lineage.get("source") or None,
        tied=tied,
        environment=apart.versions("penstock", "torch", "onnx", "onnxscript", "onnxruntime"),
        notes=tuple(made.notes),
        lineage=lineage,
    )
    digest = blobs.put(to_json(manifest))
    refs = [digest, *sorted({file.digest for file in made.files.values()})]
    if manifest.source is not None:
        refs += source_refs(manifest.source, blobs)
    return Packaged(digest, refs, _summary(manifest, copied), made.notes)


class _Files:
    """Collects the files of one package, and a note on each that is left out."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self.files: dict[str, File] = {}
        self.notes: list[str] = []
        self.weight_bytes = 0

    def add(self, kind: str, data: bytes, **facts: Any) -> None:
        self.files[kind] = File(self.blobs.put(data), len(data), facts)

    def weights(self, model: nn.Module) -> dict[str, str]:
        """Store the state dict; returns tied names -> the name whose bytes they share."""
        import safetensors.torch
        import torch

        tensors: dict[str, Tensor] = {}
        tied: dict[str, str] = {}
        seen: dict[tuple[Any, ...], str] = {}
        for name, value in model.state_dict().items():
            if not isinstance(value, torch.Tensor):
                self.notes.append(f'"{name}" of the state dict is no tensor and is left out')
                continue
            same = (value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
            if value.numel() and same in seen:
                tied[name] = seen[same]
                continue
            seen[same] = name
            tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
        self.weight_bytes = sum(each.nbytes for each in tensors.values())
        self.add("weights", safetensors.torch.save(tensors))
        return tied

    def converted(self, model: nn.Module, trial: Trial) -> None:
        """The torch.export program and the ONNX file, where the model converts."""
        try:
            exported = program.export(model, trial.places, trial.rows)
            again = named(call(exported.module(), trial.places, trial.rows), "the program")
            _same_or_raise(trial, again)
        except Exception as error:  # noqa: BLE001 - whatever tracing a user's model raises
            self.notes.append(
                f"torch.export does not convert it ({apart.first_line(error)}): published are the "
                "weights and the name of the class, no program and no ONNX file"
            )
            return
        onnx = self._onnx(exported, trial)
        try:
            data = program.to_bytes(exported)
        except Exception as error:  # noqa: BLE001 - as above
            rest = "the weights and the ONNX file" if onnx else "the weights and the class's name"
            self.notes.append(
                f"the program cannot be stored ({apart.first_line(error)}): published are {rest}"
            )
        else:
            self.add("program", data)

    def _onnx(self, exported: Any, trial: Trial) -> bool:
        """Add the ONNX file or a note on why there is none; whether it was added."""
        data, found, why = b"", 0.0, ""
        if missing := apart.installed("onnx", "onnxscript", "onnxruntime"):
            why = f"{' and '.join(missing)} is not installed (pip install 'penstock[onnx]')"
        elif self.weight_bytes > onnx_file.LARGEST:
            why = "its format ends at 2 GiB"
        else:
            try:
                data = onnx_file.convert(exported, trial.places, trial.rows, list(trial.outputs))
                found = _difference_of(data, trial)
            except Exception as error:  # noqa: BLE001 - converter, checker, runtime raise anything
                why = apart.first_line(error)
        if not why and found > onnx_file.TOLERANCE:
            limit = onnx_file.TOLERANCE
            why = f"it differs from the model by {found:.3g}, at most {limit:g} is allowed"
        if why:
            self.notes.append(
                f"ONNX is left out ({why}): published are the weights and the torch.export program"
            )
            return False
        self.add("onnx", data, max_difference=found, rows=len(trial.rows[0]))
        return True

    def example(self, trial: Trial) -> None:
        """Store the example and what the model gave for it, for later checks of the package."""
        import safetensors.numpy

        kept = min(_KEPT_ROWS, trial.given)
        arrays = {f"input.{name}": array[:kept] for name, array in trial.feeds.items()}
        arrays |= {
            f"output.{spec.name}": trial.outputs[spec.name][:kept]
            for spec in trial.signature.outputs
            if spec.shape[:1] == (BATCH,)
        }
        whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        self.add("example", safetensors.numpy.save(whole), rows=kept)


def _same_or_raise(trial: Trial, got: Mapping[str, np.ndarray[Any, Any]]) -> None:
    if set(got) != set(trial.outputs):
        raise ValueError(f"it returns {sorted(got)}")
    found = onnx_file.largest_difference(trial.outputs, got)
    if found > onnx_file.TOLERANCE:
        raise ValueError(f"its results differ by {found:.3g}")


def _difference_of(data: bytes, trial: Trial) -> float:
    """How far an ONNX file is from the model on the example; one row alone has to run too."""
    session = onnx_file.session(data)
    names = [each.name for each in session.get_outputs()]
    session.run(None, {name: array[:1] for name, array in trial.feeds.items()})
    got = dict(zip(names, session.run(None, trial.feeds), strict=True))
    return onnx_file.largest_difference(trial.outputs, got)


def _entry(model: nn.Module, notes: list[str]) -> str | None:
    """The class as "module:qualname", or None with a note when it has no such name."""
    try:
        return locate(type(model)).text
    except CannotTravel as error:
        notes.append(f"the class cannot be imported again: {error.what}")
        return None


def _summary(manifest: Package, model: nn.Module) -> dict[str, Any]:
    return {
        **to_data(manifest.signature),
        "files": sorted(manifest.files),
        "bytes": sum(file.bytes for file in manifest.files.values()),
        "parameters": sum(each.numel() for each in model.parameters()),
        "class": manifest.entry,
        "run": manifest.lineage.get("run"),
        "notes": list(manifest.notes),
    }
