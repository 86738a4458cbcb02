"""A home with small models in it, published without torch, and replicas to ask."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from penstock.base.settings import Settings
from penstock.jobs.stores import Stores, open_stores
from penstock.records import Version, to_json
from penstock.registry.manifest import File, Package, Place
from penstock.registry.signature import Signature, TensorSpec
from penstock.serving import Pace

QUICK = Pace(connection_seconds=0.5, drain_seconds=10.0)


def eventually(holds: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What `holds` gives once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)
    return found


@pytest.fixture
def until() -> Callable[..., Any]:
    return eventually


@pytest.fixture
def quick() -> Pace:
    return QUICK


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with open_stores(Settings(home=tmp_path / "home")) as opened:
        yield opened


def linear(bias: float) -> onnx.ModelProto:
    """image [B, 8] float32 -> scores [B, 3] float32 and label [B] int64."""
    weight = np.random.default_rng(7).standard_normal((8, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["image", "weight"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["scores"]),
            helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
        ],
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 8])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
        ],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.full(3, bias, np.float32), "bias"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def slow() -> onnx.ModelProto:
    """As `linear`, after about half a second of multiplying a matrix by itself."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["go_on"]),
            helper.make_node("MatMul", ["carried", "square"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, [512, 512]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [512, 512]),
        ],
    )
    model = linear(0.0)
    square = (np.eye(512) + 1e-9).astype(np.float32)
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(square, "square"),
            numpy_helper.from_array(np.array(200, np.int64), "turns"),
            numpy_helper.from_array(np.array(True), "true"),
            numpy_helper.from_array(np.array([0, 0], np.int64), "corner"),
            numpy_helper.from_array(np.array(0.0, np.float32), "nothing"),
        ]
    )
    # The start depends on the input, so that nothing of it is computed when the model is loaded.
    nodes = [
        helper.make_node("ReduceSum", ["image"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "nothing"], ["zero"]),
        helper.make_node("Add", ["square", "zero"], ["start"]),
        helper.make_node("Loop", ["turns", "true", "start"], ["turned"], body=body),
        helper.make_node("GatherND", ["turned", "corner"], ["corner_value"]),
        helper.make_node("Mul", ["corner_value", "nothing"], ["still_nothing"]),
        helper.make_node("Add", ["image", "still_nothing"], ["image_later"]),
    ]
    first = model.graph.node[0]
    first.input[0] = "image_later"
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    return model


SIGNATURE = Signature(
    (TensorSpec("image", "float32", (-1, 8)),),
    (TensorSpec("scores", "float32", (-1, 3)), TensorSpec("label", "int64", (-1,))),
)


@dataclass
class Shelf:
    """Publishes models of one name."""

    stores: Stores

    def add(
        self,
        model: onnx.ModelProto,
        name: str = "toy",
        signature: Signature = SIGNATURE,
    ) -> Version:
        onnx.checker.check_model(model, full_check=True)
        data = model.SerializeToString(deterministic=True)
        blob = self.stores.blobs.put(data)
        places = tuple(Place(spec.name, spec.name) for spec in signature.inputs)
        package = Package(1, name, signature, {"onnx": File(blob, len(data))}, places)
        digest = self.stores.blobs.put(to_json(package))
        with self.stores.meta.write() as meta:
            return meta.add_version("model", name, digest, f"test/{digest}", {}, [digest, blob])

    def linear(self, bias: float = 0.0, name: str = "toy") -> Version:
        return self.add(linear(bias), name)

    def slow(self, name: str = "slow") -> Version:
        return self.add(slow(), name)


@pytest.fixture
def shelf(stores: Stores) -> Shelf:
    return Shelf(stores)


@dataclass
class Started:
    """A replica that was started by hand, and what it said."""

    process: subprocess.Popen[bytes]
    said: dict[str, Any]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.said['port']}"

    def tell(self, sig: signal.Signals) -> None:
        self.process.send_signal(sig)


@pytest.fixture
def start(stores: Stores) -> Iterator[Callable[..., Started]]:
    """Start a replica of a version; all are killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def _start(version: Version, *extra: str) -> Started:
        command = [sys.executable, "-m", "penstock.serving.replica"]
        command += ["--home", str(stores.layout.root), "--blobs", stores.blobs.url]
        command += ["--digest", version.digest, "--model", version.name]
        command += ["--version", str(version.version), "--deployment", "front"]
        command += ["--parent", str(os.getpid()), *extra]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        return Started(process, json.loads(process.stdout.readline()))

    yield _start
    for process in started:
        process.kill()
        process.wait()
