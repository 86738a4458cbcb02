"""A model version in this process, ready to be called.

Runs the ONNX file where there is one, else the torch.export program, else the model's class with
its weights. All three take and give arrays by the names of the signature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from penstock.base.errors import BadInput, MissingExtra, PenstockError
from penstock.base.layout import Layout
from penstock.blobs.port import Blobs
from penstock.registry import apart, onnx_file
from penstock.registry.manifest import Package, read_package
from penstock.registry.signature import Signature

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores

Arrays: TypeAlias = dict[str, np.ndarray[Any, Any]]
Runtime = Literal["onnx", "program", "class"]
RUNTIMES: tuple[Runtime, ...] = ("onnx", "program", "class")


class LoadedModel:
    """Call it with one array (a model with one input) or with a dict of arrays.

    Arrays in, arrays out; torch tensors in, torch tensors (on the CPU) out. A model with the one
    output "output" gives that array, any other a dict by name. No gradients.

    reference  "digits-cnn@3", what was loaded
    runtime    "onnx", "program" or "class"
    package    the manifest
    """

    def __init__(
        self, reference: str, package: Package, runtime: Runtime, run: Callable[[Arrays], Arrays]
    ) -> None:
        self.reference = reference
        self.package = package
        self.runtime: Runtime = runtime
        self._run = run

    def __repr__(self) -> str:
        takes = ", ".join(str(spec) for spec in self.signature.inputs)
        return f"<LoadedModel {self.reference} by {self.runtime}: {takes}>"

    @property
    def signature(self) -> Signature:
        return self.package.signature

    def predict(self, inputs: Mapping[str, Any]) -> Arrays:
        """All outputs by name, as NumPy arrays. Raises BadInput (see `Signature.check`)."""
        return self._run(self.signature.check({key: _array(v) for key, v in inputs.items()}))

    def __call__(self, inputs: Any) -> Any:
        """See the class. Raises BadInput when the inputs do not match the signature."""
        if not isinstance(inputs, Mapping):
            names = [spec.name for spec in self.signature.inputs]
            if len(names) != 1:
                raise BadInput(
                    f"{self.reference} has {len(names)} inputs, it was given one array",
                    f"Pass a dict with {', '.join(names)}.",
                    inputs=names,
                )
            inputs = {names[0]: inputs}
        as_torch = any(hasattr(value, "detach") for value in inputs.values())
        outputs: dict[str, Any] = dict(self.predict(inputs))
        if as_torch:
            import torch

            outputs = {name: torch.from_numpy(array) for name, array in outputs.items()}
        return outputs["output"] if list(outputs) == ["output"] else outputs


def load(
    stores: Stores,
    reference: str,
    *,
    runtime: Runtime | None = None,
    config: Any = None,
    threads: int | None = None,
) -> LoadedModel:
    """The model that a reference means now: "digits-cnn@production", "digits-cnn@3", "digits-cnn".

    runtime  which file to run; default: the first that the package has and that is installed
    config   for the class of a model that does not convert: a dict becomes keyword arguments of
             its constructor, anything else its one argument; None: it is called without arguments
    threads  of ONNX Runtime; default: one per core of this process

    Raises NotFound (nearest offered), MissingExtra, BadInput, Damaged.
    """
    with stores.meta.read() as meta:
        version = meta.get_version("model", reference)
    return open_package(
        stores.blobs,
        version.digest,
        stores.layout,
        reference=version.reference,
        runtime=runtime,
        config=config,
        threads=threads,
    )


def open_package(
    blobs: Blobs,
    digest: str,
    layout: Layout,
    *,
    reference: str = "",
    runtime: Runtime | None = None,
    config: Any = None,
    threads: int | None = None,
) -> LoadedModel:
    """As `load`, for processes that never open the meta store."""
    package = read_package(blobs, digest)
    name = reference or package.name
    chosen = _choose(package, name, runtime)
    if chosen == "onnx":
        run = _onnx(blobs.get(package.files["onnx"].digest), package, threads)
    elif chosen == "program":
        run = _program(blobs.get(package.files["program"].digest), package)
    else:
        from penstock.registry.from_class import rebuild

        run = _module(rebuild(blobs, layout, package, config), package)
    return LoadedModel(name, package, chosen, run)


def _choose(package: Package, name: str, wanted: Runtime | None) -> Runtime:
    """The first runtime whose file is there and whose modules are installed."""
    needs: dict[Runtime, str] = {"onnx": "onnxruntime", "program": "torch", "class": "torch"}
    there: list[Runtime] = [
        each
        for each in RUNTIMES
        if (package.entry and package.source if each == "class" else each in package.files)
    ]
    if wanted is not None and wanted not in there:
        raise BadInput(
            f'{name} cannot be run as "{wanted}": its package has no such part',
            f"It has: {', '.join(there) or 'weights only'}. {' '.join(package.notes)}".strip(),
            model=name,
            runtime=wanted,
        )
    if not there:
        raise BadInput(
            f"the package of {name} holds weights only: {' '.join(package.notes)}",
            "Define the model's class at the top level of a file of the project; publish again.",
            model=name,
        )
    options = [wanted] if wanted is not None else there
    for each in options:
        if not apart.installed(needs[each]):
            return each
    missing = sorted({needs[each] for each in options})
    raise MissingExtra(
        f"loading {name} needs {' or '.join(missing)}, which is not installed",
        "pip install 'penstock[onnx]' (or 'penstock[torch]').",
        missing=missing,
    )


def _onnx(data: bytes, package: Package, threads: int | None) -> Callable[[Arrays], Arrays]:
    session = onnx_file.session(data, threads)
    names = [spec.name for spec in package.signature.outputs]

    def run(arrays: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, arrays), strict=True))

    return run


def _program(data: bytes, package: Package) -> Callable[[Arrays], Arrays]:
    from penstock.registry.program import from_bytes

    return _module(from_bytes(data), package)


def _module(module: Any, package: Package) -> Callable[[Arrays], Arrays]:
    """Run a torch module by the names of the signature."""
    import torch

    from penstock.registry.binding import call
    from penstock.registry.outputs import named

    names = [spec.name for spec in package.signature.outputs]

    def run(arrays: Arrays) -> Arrays:
        try:
            rows = [torch.from_numpy(arrays[place.name]) for place in package.places]
            with torch.no_grad():
                outputs = named(call(module, package.places, rows), package.name)
        except PenstockError:
            raise
        except Exception as error:
            raise BadInput(
                f"{package.name} does not run on these inputs: {apart.first_line(error)}",
                "Their shapes match the signature; does the model allow this number of rows?",
                model=package.name,
            ) from error
        return {name: outputs[name] for name in names}

    return run


def _array(value: Any) -> Any:
    """A tensor's values as NumPy sees them; anything else unchanged."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value
