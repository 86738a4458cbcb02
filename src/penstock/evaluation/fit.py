"""Whether a suite, a dataset version and a model fit together; checked before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean
from penstock.data import Column, Manifest
from penstock.evaluation.suite import Suite
from penstock.registry import Signature, TensorSpec
from penstock.registry.signature import BATCH


@dataclass(frozen=True, slots=True)
class Fit:
    """What a unit has to know. JSON-able.

    inputs   (column, the model's input) in the order of the model's inputs
    output   the model's output with the scores
    classes  how many there are
    """

    inputs: tuple[tuple[str, str], ...]
    output: str
    classes: int


def fit(suite: Suite, manifest: Manifest, split: str, signature: Signature, model: str) -> Fit:
    """Match them up.

    Raises BadInput: an empty split, a column that is missing or of the wrong kind, inputs whose
    dtype or shape the model does not take, outputs that are no scores.
    """
    if not manifest.split(split).rows:
        raise BadInput(
            f"split {suite.data} has no rows, so nothing can be measured on it",
            "Prepare the dataset with a share for this split, or evaluate on another one.",
            data=suite.data,
        )
    _label(suite, manifest)
    for name in suite.slices:
        column = _column(suite, manifest, name, "slices")
        sliceable = column.kind == "text" or (
            column.kind == "number" and not column.dtype.startswith("float")
        )
        if not sliceable:
            raise BadInput(
                f'suite {suite.name} slices by "{name}", which is {column}',
                "Slice by text, whole numbers or bool; put others into bins when preparing.",
                column=name,
            )
    inputs = _inputs(suite, manifest, signature, model)
    output = _output(suite, signature, model)
    return Fit(inputs, output.name, output.shape[1])


def _column(suite: Suite, manifest: Manifest, name: str, where: str) -> Column:
    if (found := manifest.schema.get(name)) is None:
        raise BadInput(
            f'{where} of suite {suite.name} names "{name}", but {suite.data} has no such column',
            did_you_mean(name, manifest.schema),
            column=name,
            columns=list(manifest.schema),
        )
    return found


def _label(suite: Suite, manifest: Manifest) -> None:
    name = suite.metrics.label
    column = _column(suite, manifest, name, "label")
    if column.kind != "number" or not column.dtype.startswith(("int", "uint")):
        raise BadInput(
            f'label column "{name}" of {suite.data} is {column}, not a whole number',
            "Store the class as a number from 0 to classes - 1 when preparing.",
            column=name,
        )


def _inputs(
    suite: Suite, manifest: Manifest, signature: Signature, model: str
) -> tuple[tuple[str, str], ...]:
    takes = [spec.name for spec in signature.inputs]
    named = suite.metrics.inputs or tuple(takes)
    if len(named) != len(takes):
        raise BadInput(
            f"suite {suite.name} gives {len(named)} inputs ({', '.join(named)}), {model} takes "
            f"{len(takes)} ({', '.join(takes)})",
            "Name one column for each input of the model, in their order.",
            inputs=list(named),
            model_inputs=takes,
        )
    columns = dict(zip(takes, takes if set(named) == set(takes) else named, strict=True))
    for spec in signature.inputs:
        column = _column(suite, manifest, columns[spec.name], "inputs")
        stored = TensorSpec(column.name, column.dtype, (BATCH, *column.shape))
        if (stored.dtype, stored.shape) != (spec.dtype, spec.shape):
            raise BadInput(
                f"{suite.data} has {stored}, but {model} takes {spec}",
                "Evaluate on data of the form that it was trained on, or convert in the model.",
                model=model,
                column=column.name,
            )
    return tuple((columns[name], name) for name in takes)


def _output(suite: Suite, signature: Signature, model: str) -> TensorSpec:
    outputs = {spec.name: spec for spec in signature.outputs}
    wanted = suite.metrics.output
    if wanted is None and len(outputs) > 1:
        raise BadInput(
            f"{model} has the outputs {', '.join(outputs)}; which are the scores?",
            'Say it: classification(…, output="NAME").',
            outputs=list(outputs),
        )
    found = outputs.get(wanted) if wanted is not None else next(iter(outputs.values()))
    if found is None:
        raise BadInput(
            f'{model} has no output "{wanted}"', did_you_mean(str(wanted), outputs), output=wanted
        )
    scores = len(found.shape) == 2 and found.shape[0] == BATCH and found.shape[1] > 1
    if not scores or not found.dtype.startswith("float"):
        raise BadInput(
            f"output {found} of {model} is no table of scores",
            "A classification needs a float output [B, classes] with two classes or more.",
            output=found.name,
            shape=list(found.shape),
        )
    return found
