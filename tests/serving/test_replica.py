"""One replica, asked over real gRPC."""

from __future__ import annotations

import signal
import threading
import urllib.request
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from penstock.base import process
from penstock.registry import load
from penstock.serving.protocol import open_inference_pb2 as pb
from penstock.serving.protocol.open_inference_pb2_grpc import GRPCInferenceServiceStub


def image(rows: int = 4) -> np.ndarray:
    return np.random.default_rng(rows).standard_normal((rows, 8)).astype(np.float32)


def tensor(array: np.ndarray, name: str = "image", datatype: str = "FP32") -> InferInput:
    made = InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


@pytest.fixture
def replica(shelf: Any, start: Any) -> Any:
    return start(shelf.linear())


@pytest.fixture
def client(replica: Any) -> Any:
    with InferenceServerClient(replica.address) as made:
        yield made


@pytest.fixture
def stub(replica: Any) -> Any:
    with grpc.insecure_channel(replica.address) as channel:
        yield GRPCInferenceServiceStub(channel)


@pytest.mark.parametrize("rows", [1, 2, 360])
def test_served_equals_offline_at_any_batch(client: Any, stores: Any, rows: int) -> None:
    offline = load(stores, "toy@1").predict({"image": image(rows)})
    served = client.infer("front", [tensor(image(rows))])
    np.testing.assert_allclose(served.as_numpy("scores"), offline["scores"], atol=1e-5)
    np.testing.assert_array_equal(served.as_numpy("label"), offline["label"])


def test_it_is_reached_by_the_names_of_deployment_and_model(client: Any) -> None:
    for name in ("front", "toy"):
        assert client.is_model_ready(name)
        assert client.is_model_ready(name, "1")
        answer = client.infer(name, [tensor(image())], model_version="1", request_id="7")
        response = answer.get_response()
        assert (response.model_name, response.model_version, response.id) == (name, "1", "7")


def test_it_tells_its_signature(client: Any) -> None:
    found = client.get_model_metadata("front")
    assert [(t.name, t.datatype, list(t.shape)) for t in found.inputs] == [
        ("image", "FP32", [-1, 8])
    ]
    assert [(t.name, t.datatype, list(t.shape)) for t in found.outputs] == [
        ("scores", "FP32", [-1, 3]),
        ("label", "INT64", [-1]),
    ]
    assert client.get_server_metadata().name == "penstock"
    assert client.is_server_live()
    assert client.is_server_ready()


def test_typed_contents_are_answered_typed_and_equal_raw_ones(client: Any, stub: Any) -> None:
    request = pb.ModelInferRequest(model_name="front")
    given = request.inputs.add(name="image", datatype="FP32", shape=[4, 8])
    given.contents.fp32_contents.extend(image().ravel().tolist())
    response = stub.ModelInfer(request)
    assert not response.raw_output_contents
    typed = np.array(response.outputs[0].contents.fp32_contents, np.float32).reshape(4, 3)
    raw = client.infer("front", [tensor(image())]).as_numpy("scores")
    np.testing.assert_array_equal(typed, raw)


def test_only_the_outputs_that_are_asked_for_come_back(client: Any) -> None:
    answer = client.infer("front", [tensor(image())], outputs=[InferRequestedOutput("label")])
    assert [output.name for output in answer.get_response().outputs] == ["label"]


def wrong(**changes: Any) -> pb.ModelInferRequest:
    """A good request with one thing changed."""
    request = pb.ModelInferRequest(model_name=changes.pop("model", "front"))
    request.model_version = changes.pop("version", "")
    data = changes.pop("raw", image().tobytes())
    times = changes.pop("times", 1)
    typed = changes.pop("typed", {})
    for output in changes.pop("outputs", []):
        request.outputs.add(name=output)
    parameters = changes.pop("parameters", {})
    for _ in range(times):
        given = {"name": "image", "datatype": "FP32", "shape": [4, 8], **changes}
        tensor = request.inputs.add(**given)
        for key, values in typed.items():
            getattr(tensor.contents, key).extend(values)
        if data is not None:
            request.raw_input_contents.append(data)
    for key, value in parameters.items():
        request.parameters[key].string_param = value
    return request


BAD = {
    "an unknown input": (wrong(name="imgae"), 'Did you mean "image"'),
    "no input": (wrong(times=0), "missing"),
    "an input twice": (wrong(times=2), "twice"),
    "another datatype": (wrong(datatype="FP64"), "takes FP32"),
    "text": (wrong(datatype="BYTES"), "text"),
    "a datatype of nobody": (wrong(datatype="FP33"), "FP33"),
    "a wrong size": (wrong(shape=[4, 9], raw=bytes(144)), "shape"),
    "a row without its batch": (wrong(shape=[8], raw=bytes(32)), "batch"),
    "a negative size": (wrong(shape=[-1, 8]), "impossible"),
    "a giant shape": (wrong(shape=[1 << 40, 1 << 40]), "impossible"),
    "too few bytes": (wrong(raw=b"abc"), "3 bytes"),
    "too many bytes": (wrong(raw=bytes(4 * 8 * 4 + 1)), "129 bytes"),
    "no rows": (wrong(shape=[0, 8], raw=b""), "no rows"),
    "too few elements": (wrong(raw=None, typed={"fp32_contents": [1.0]}), "1 elements"),
    "the wrong field": (wrong(raw=None, typed={"int_contents": [1] * 32}), "fp32_contents"),
    "no contents": (wrong(raw=None), "0 elements"),
    "raw and typed": (wrong(typed={"fp32_contents": [1.0] * 32}), "beside"),
    "an unknown output": (wrong(outputs=["labels"]), 'Did you mean "label"'),
    "an output twice": (wrong(outputs=["label", "label"]), "twice"),
    "shared memory": (wrong(parameters={"shared_memory_region": "x"}), "not supported"),
}


def test_bad_input_is_one_clear_error_and_the_replica_is_unharmed(stub: Any, client: Any) -> None:
    before = client.infer("front", [tensor(image())]).as_numpy("scores")
    for what, (request, text) in BAD.items():
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, what
        assert text in caught.value.details(), what
        assert dict(caught.value.trailing_metadata())["penstock-code"] == "bad-input"
    after = client.infer("front", [tensor(image())]).as_numpy("scores")
    np.testing.assert_array_equal(before, after)


def test_more_raw_contents_than_inputs_are_refused(stub: Any) -> None:
    request = wrong()
    request.raw_input_contents.append(b"more")
    with pytest.raises(grpc.RpcError, match="1 inputs but 2 raw"):
        stub.ModelInfer(request)


@pytest.mark.parametrize("change", [{"model": "frnot"}, {"version": "2"}, {"version": "x"}])
def test_an_unknown_model_or_version_is_not_found(stub: Any, change: dict[str, str]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(wrong(**change))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    metadata = pb.ModelMetadataRequest(
        name=change.get("model", "front"), version=change.get("version", "")
    )
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelMetadata(metadata)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_model_that_is_not_there_is_not_ready(client: Any) -> None:
    assert not client.is_model_ready("frnot")
    assert not client.is_model_ready("front", "2")


def test_messages_beyond_grpcs_own_limit_of_4_mib_pass_and_beyond_64_are_refused(
    client: Any,
) -> None:
    rows = 200_000  # 6.4 MB in, 4 MB out
    assert client.infer("front", [tensor(image(rows))]).as_numpy("label").shape == (rows,)
    with pytest.raises(InferenceServerException) as caught:
        client.infer("front", [tensor(np.zeros((2_100_000, 8), np.float32))])
    assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
    assert client.is_server_ready()


def test_the_standard_health_service_answers(replica: Any) -> None:
    with grpc.insecure_channel(replica.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService", "front", "toy"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_prometheus_reads_what_was_answered(replica: Any, client: Any, stub: Any) -> None:
    for _ in range(3):
        client.infer("front", [tensor(image(5))])
    with pytest.raises(grpc.RpcError):
        stub.ModelInfer(wrong(name="other"))
    lines = metrics(replica).splitlines()
    labels = 'deployment="front",model="toy@1"'
    assert f'penstock_requests_total{{code="OK",{labels}}} 3.0' in lines
    assert f'penstock_requests_total{{code="INVALID_ARGUMENT",{labels}}} 1.0' in lines
    assert f"penstock_request_seconds_count{{{labels}}} 4.0" in lines
    assert f"penstock_rows_total{{{labels}}} 15.0" in lines
    assert f"penstock_requests_in_flight{{{labels}}} 0.0" in lines


def metrics(replica: Any) -> str:
    with urllib.request.urlopen(replica.said["metrics"]) as page:
        return str(page.read().decode())


def in_flight(replica: Any) -> float:
    found = [line for line in metrics(replica).splitlines() if "requests_in_flight{" in line]
    return float(found[0].split()[-1])


def test_sigterm_finishes_what_is_in_flight_and_exits_0(shelf: Any, start: Any, until: Any) -> None:
    replica = start(shelf.slow(), "--workers", "4")
    answers: list[Any] = []

    def ask() -> None:
        with InferenceServerClient(replica.address) as client:
            try:
                answers.append(client.infer("slow", [tensor(image())]).as_numpy("label").shape)
            except InferenceServerException as error:
                answers.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: in_flight(replica) == 4)
    replica.tell(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert answers == [(4,)] * 4
    assert replica.process.wait() == 0


def test_requests_during_a_drain_are_refused_as_unavailable(
    shelf: Any, start: Any, until: Any
) -> None:
    replica = start(shelf.slow())
    with InferenceServerClient(replica.address) as client:
        assert client.is_server_ready()  # connected
        waiting = client.async_infer("slow", [tensor(image())], lambda result, error: None)
        until(lambda: in_flight(replica) == 1)
        replica.tell(signal.SIGTERM)
        until(lambda: not client.is_server_ready())
        with pytest.raises(InferenceServerException) as caught:
            client.infer("slow", [tensor(image())])
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
        del waiting
    assert replica.process.wait() == 0


def test_calls_beyond_the_bound_are_refused_not_queued_for_ever(
    shelf: Any, start: Any, until: Any
) -> None:
    replica = start(shelf.slow(), "--workers", "1", "--in-flight", "2")
    codes: list[str] = []
    with InferenceServerClient(replica.address) as client:
        assert client.is_server_live()
        for _ in range(6):
            client.async_infer(
                "slow",
                [tensor(image())],
                lambda result, error: codes.append("OK" if error is None else error.status()),
            )
        until(lambda: len(codes) == 6)
    assert sorted(codes) == ["OK"] * 2 + ["StatusCode.RESOURCE_EXHAUSTED"] * 4


def test_what_nobody_waits_for_any_more_is_not_computed(shelf: Any, start: Any, until: Any) -> None:
    replica = start(shelf.slow(), "--workers", "1")
    done: list[Any] = []
    with (
        InferenceServerClient(replica.address) as client,
        InferenceServerClient(
            replica.address, channel_args=[("grpc.use_local_subchannel_pool", 1)]
        ) as hasty,
    ):
        client.async_infer("slow", [tensor(image(4))], lambda result, error: done.append(error))
        until(lambda: in_flight(replica) == 1)
        with pytest.raises(InferenceServerException, match=r"(?i)deadline"):
            hasty.infer("slow", [tensor(image(5))], client_timeout=0.1)
        until(lambda: done)
        client.infer("slow", [tensor(image(6))])
    assert 'penstock_rows_total{deployment="front",model="slow@1"} 10.0' in metrics(replica)


def test_a_replica_that_cannot_load_says_why_in_one_line(shelf: Any, start: Any) -> None:
    version = shelf.linear()
    missing = start(type(version)("model", "toy", 9, "sha256:" + "0" * 64, "x", 0.0))
    assert missing.said["error"]["code"] == "not-found"
    assert missing.process.wait() == 3


def test_a_taken_port_is_one_clear_error(shelf: Any, start: Any) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        replica = start(shelf.linear(), "--port", str(taken.getsockname()[1]))
    assert replica.said["error"]["code"] == "unavailable"
    assert replica.process.wait() == 7


@pytest.mark.faults
def test_no_replica_outlives_its_keeper(shelf: Any, stores: Any, until: Any, tmp_path: Any) -> None:
    """A process that starts a replica and is killed."""
    import subprocess
    import sys

    version = shelf.linear()
    code = f"""
import os, subprocess, sys, time
command = [sys.executable, "-m", "penstock.serving.replica", "--home", {str(stores.layout.root)!r},
    "--blobs", {stores.blobs.url!r}, "--digest", {version.digest!r}, "--model", "toy",
    "--version", "1", "--deployment", "front", "--parent", str(os.getpid())]
child = subprocess.Popen(command, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(1000)
"""
    keeper = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert keeper.stdout is not None
    pid = int(keeper.stdout.readline())
    assert process.start_time(pid) is not None
    keeper.kill()
    keeper.wait()
    until(lambda: process.start_time(pid) is None)
