"""A request against a signature: what it may name, and the arrays it carries.

Pure: a request in, arrays or one BadInput out. Nothing here depends on gRPC.
"""

from __future__ import annotations

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean
from penstock.registry import Signature
from penstock.serving.protocol import open_inference_pb2 as pb
from penstock.serving.tensors import Array, datatype, decode

# Parameters of the protocol's extensions that would change the answer: refused, not overlooked.
_UNSUPPORTED = ("shared_memory_region", "classification", "sequence_id")


def inputs(request: pb.ModelInferRequest, signature: Signature) -> dict[str, Array]:
    """The request's inputs, decoded; shapes are the signature's to check. Raises BadInput."""
    _refuse_extensions(request)
    raw = request.raw_input_contents
    if raw:
        _check_raw(request)
    specs = {spec.name: spec for spec in signature.inputs}
    found: dict[str, Array] = {}
    for index, tensor in enumerate(request.inputs):
        if tensor.name in found:
            raise BadInput(
                f'input "{tensor.name}" is given twice', "Give each input once.", input=tensor.name
            )
        if tensor.name not in specs:
            raise BadInput(
                f'the model has no input "{tensor.name}"',
                did_you_mean(tensor.name, specs),
                input=tensor.name,
                inputs=list(specs),
            )
        wanted = datatype(specs[tensor.name].dtype)
        found[tensor.name] = decode(tensor, raw[index] if raw else None, wanted)
    if any(array.shape[:1] == (0,) for array in found.values()):
        raise BadInput("the request has no rows", "Send at least one row.")
    return found


def outputs(request: pb.ModelInferRequest, signature: Signature) -> list[str]:
    """Names of the outputs that are wanted, in the order asked; all when none is named."""
    known = [spec.name for spec in signature.outputs]
    wanted = [tensor.name for tensor in request.outputs]
    for name in wanted:
        if name not in known:
            raise BadInput(
                f'the model has no output "{name}"',
                did_you_mean(name, known),
                output=name,
                outputs=known,
            )
    if len(set(wanted)) < len(wanted):
        raise BadInput("an output is asked for twice", "Name each output once.", outputs=wanted)
    return wanted or known


def _check_raw(request: pb.ModelInferRequest) -> None:
    if len(request.raw_input_contents) != len(request.inputs):
        raise BadInput(
            f"{len(request.inputs)} inputs but {len(request.raw_input_contents)} raw contents",
            "Send one raw content per input, in the same order, or typed contents for all.",
            inputs=len(request.inputs),
            raw=len(request.raw_input_contents),
        )
    for tensor in request.inputs:
        if tensor.HasField("contents"):
            raise BadInput(
                f'input "{tensor.name}" has typed contents beside raw ones',
                "Use either raw_input_contents for all inputs or `contents` for all.",
                input=tensor.name,
            )


def _refuse_extensions(request: pb.ModelInferRequest) -> None:
    of_inputs = [tensor.parameters for tensor in request.inputs]
    of_outputs = [tensor.parameters for tensor in request.outputs]
    for given in (request.parameters, *of_inputs, *of_outputs):
        for name in _UNSUPPORTED:
            if name in given:
                raise BadInput(
                    f'the parameter "{name}" is not supported',
                    "Leave it out: tensors travel in the request, and no model here has a state.",
                    parameter=name,
                )
