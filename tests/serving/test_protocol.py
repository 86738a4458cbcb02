"""Our definition of the protocol beside tritonclient's, in one process."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tritonclient.grpc import service_pb2 as theirs

from penstock.serving.protocol import open_inference_pb2 as ours

SERVICE = "GRPCInferenceService"


def fields(descriptor: object) -> dict[str, tuple[int, int, bool, str | None]]:
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.message_type and field.message_type.full_name,
        )
        for field in descriptor.fields  # type: ignore[attr-defined]
    }


def messages(descriptor: object) -> list[object]:
    nested = list(descriptor.nested_types)  # type: ignore[attr-defined]
    return [descriptor, *(deep for each in nested for deep in messages(each))]


def test_every_message_of_ours_has_the_fields_of_the_public_protocol() -> None:
    compared = 0
    for name, top in ours.DESCRIPTOR.message_types_by_name.items():
        other = theirs.DESCRIPTOR.message_types_by_name[name]
        by_name = {each.full_name: each for each in messages(other)}
        for each in messages(top):
            assert fields(each) == fields(by_name[each.full_name]), each.full_name
            compared += 1
    assert compared >= 20


def test_every_method_of_ours_is_one_of_the_public_protocol() -> None:
    other = theirs.DESCRIPTOR.services_by_name[SERVICE].methods_by_name
    for name, method in ours.DESCRIPTOR.services_by_name[SERVICE].methods_by_name.items():
        assert method.input_type.full_name == other[name].input_type.full_name
        assert method.output_type.full_name == other[name].output_type.full_name


def test_bytes_of_one_are_read_by_the_other() -> None:
    mine = ours.ModelInferRequest(model_name="a", id="1")
    mine.parameters["x"].int64_param = 3
    mine.inputs.add(name="i", datatype="FP32", shape=[1]).contents.fp32_contents.append(1.5)
    there = theirs.ModelInferRequest.FromString(mine.SerializeToString())
    assert there.inputs[0].contents.fp32_contents[0] == 1.5
    assert ours.ModelInferRequest.FromString(there.SerializeToString()) == mine


@pytest.mark.parametrize("order", ["ours, theirs", "theirs, ours"])
def test_both_can_be_imported_in_one_process_in_either_order(order: str) -> None:
    imports = {
        "ours": "import penstock.serving.protocol.open_inference_pb2_grpc",
        "theirs": "import tritonclient.grpc",
    }
    code = "\n".join(imports[each] for each in order.split(", "))
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_serving_loads_neither_grpc_nor_torch() -> None:
    code = "import sys, penstock.serving; assert not {'grpc', 'torch', 'onnx'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
