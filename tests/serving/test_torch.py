"""Models as a training run publishes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput

from penstock.records import Version, to_json
from penstock.registry import load, package, read_package

pytestmark = pytest.mark.torch


@pytest.fixture
def published(stores: Any) -> Version:
    import torch
    from torch import nn

    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    made = package(
        model, torch.rand(2, 1, 8, 8), stores.blobs, stores.layout, name="cnn", lineage={}
    )
    with stores.meta.write() as meta:
        return meta.add_version("model", "cnn", made.digest, "test", {}, made.refs)


def without_onnx(stores: Any, version: Version) -> Version:
    """The same model as a version that did not convert to ONNX."""
    found = read_package(stores.blobs, version.digest)
    files = {name: file for name, file in found.files.items() if name != "onnx"}
    digest = stores.blobs.put(to_json(replace(found, files=files)))
    with stores.meta.write() as meta:
        return meta.add_version("model", "cnn", digest, "test2", {}, [digest])


def test_served_equals_offline_by_onnx_and_by_torch_export(
    stores: Any, published: Version, start: Any
) -> None:
    images = np.random.default_rng(1).random((50, 1, 8, 8), np.float32)
    wanted = load(stores, "cnn@1")(images)
    for version in (published, without_onnx(stores, published)):
        replica = start(version)
        assert replica.said["runtime"] == ("onnx" if version is published else "program")
        with InferenceServerClient(replica.address) as client:
            [spec] = client.get_model_metadata("cnn").inputs
            for part in (images, images[:1]):
                tensor = InferInput(spec.name, list(part.shape), "FP32")
                tensor.set_data_from_numpy(part)
                got = client.infer("cnn", [tensor]).as_numpy("output")
                np.testing.assert_allclose(got, wanted[: len(part)], atol=1e-5)
                np.testing.assert_array_equal(got.argmax(1), wanted[: len(part)].argmax(1))
