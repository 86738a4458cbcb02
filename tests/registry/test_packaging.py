from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from penstock.base.errors import BadInput, CannotTravel, DiskFull
from penstock.base.hashing import is_digest
from penstock.blobs import open_blobs
from penstock.registry import open_package, package, read_package


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.head = nn.Linear(4, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens, *, scale=None):
        scores = self.head(self.embed(tokens).mean(1))
        return {"scores": scores if scale is None else scores * scale, "unused": None}


class Branching(nn.Module):
    """Data decide which way it goes: nothing to trace."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 3)

    def forward(self, x):
        return self.inner(x) if x.sum() > 0 else -self.inner(x)


class FixedBatch(nn.Module):
    def forward(self, x):
        return x.reshape(2, -1) if x.shape[0] == 2 else x.reshape(x.shape[0], -1)


class Returns(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what = what
        self.inner = nn.Linear(2, 2)

    def forward(self, x):
        return self.what(self.inner(x))


def test_a_package_holds_weights_program_and_onnx(published, blobs):
    found = read_package(blobs, published.digest)
    assert set(found.files) == {"weights", "program", "onnx", "example"}
    assert found.notes == () and published.notes == []
    assert found.files["onnx"].facts["max_difference"] <= 1e-4
    assert [str(spec) for spec in found.signature.inputs] == ['"image" float32 [B, 8, 8]']
    assert [str(spec) for spec in found.signature.outputs] == ['"output" float32 [B, 10]']
    assert published.refs[0] == published.digest and all(map(is_digest, published.refs))
    assert set(published.refs) == {published.digest, *(f.digest for f in found.files.values())}


@given(rows=st.integers(1, 40), runtime=st.sampled_from(["onnx", "program"]))
@settings(max_examples=20, deadline=None)
def test_every_batch_size_gives_what_the_model_gives(published, blobs, layout, net, rows, runtime):
    loaded = open_package(blobs, published.digest, layout, runtime=runtime)
    images = torch.rand(rows, 8, 8, generator=torch.Generator().manual_seed(rows))
    with torch.no_grad():
        was = net.training
        wanted = net.eval()(images)
        net.train(was)
    assert torch.allclose(loaded(images), wanted, atol=1e-5)
    assert np.allclose(loaded(images.numpy()), wanted, atol=1e-5)


def test_weights_are_plain_safetensors(published, blobs, net):
    import safetensors.torch

    found = safetensors.torch.load(
        blobs.get(read_package(blobs, published.digest).files["weights"].digest)
    )
    assert set(found) == set(net.state_dict())
    assert all(torch.equal(found[name], each) for name, each in net.state_dict().items())


def test_the_example_is_kept_with_what_the_model_gave_for_it(published, blobs, layout):
    import safetensors.numpy

    stored = read_package(blobs, published.digest).files["example"]
    arrays = safetensors.numpy.load(blobs.get(stored.digest))
    assert arrays["input.image"].shape == (3, 8, 8)
    again = open_package(blobs, published.digest, layout)(arrays["input.image"])
    assert np.allclose(again, arrays["output.output"], atol=1e-5)


def test_the_same_model_gives_the_same_digest(blobs, layout, net):
    example = {"image": torch.ones(1, 8, 8)}
    first, second = (package(net, example, blobs, layout, name="x") for _ in range(2))
    assert first == second


def test_no_path_of_this_machine_is_published(published, blobs):
    for digest in published.refs:
        data = blobs.get(digest)
        assert b".py" not in data and b"/registry" not in data


def test_publishing_prints_nothing(blobs, layout, net, capfd):
    package(net, {"image": torch.rand(2, 8, 8)}, blobs, layout, name="quiet")
    assert capfd.readouterr() == ("", "")


def train(steps, publish_at=None, blobs=None, layout=None):
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    seen = []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for step in range(steps):
        noise = torch.rand(6, 4) + float(np.random.rand()) + random.random()
        model(noise).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if step == publish_at:
            package(
                model,
                {"x": torch.rand(1, 4, generator=torch.Generator())},
                blobs,
                layout,
                name="m",
                inputs=["x"],
            )
    return model, len(seen)


def test_training_goes_on_bit_for_bit_after_publishing(blobs, layout):
    undisturbed, hooks = train(8)
    published, hooks_too = train(8, publish_at=3, blobs=blobs, layout=layout)
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(value, published.state_dict()[name]), name
    assert published.training and all(each.requires_grad for each in published.parameters())
    assert hooks == hooks_too == 8


def test_hooks_of_torch_are_part_of_a_model_and_others_are_told_of(blobs, layout):
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 3)), nn.Softmax(1))
    seen = []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    model[0].weight_g.data.mul_(2.0)  # after this `weight` is stale until the hook makes it anew
    rows = torch.rand(5, 4)
    wanted = model(rows)
    found = package(model, {"input": rows}, blobs, layout, name="normed")
    assert found.summary["files"] == ["example", "onnx", "program", "weights"]
    assert found.notes == [
        "left out: hooks registered on the model (1), which its class does not have"
    ]
    assert len(seen) == 1
    for runtime in ("onnx", "program"):
        loaded = open_package(blobs, found.digest, layout, runtime=runtime)
        assert torch.allclose(loaded(rows), wanted.detach(), atol=1e-5)


def test_what_ddp_wraps_is_published(blobs, layout):
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(nn.Linear(2, 3))
        found = package(wrapped, {"input": torch.rand(1, 2)}, blobs, layout, name="ddp")
    finally:
        dist.destroy_process_group()
    assert read_package(blobs, found.digest).files.keys() >= {"weights", "program", "onnx"}
    assert found.summary["class"] == "torch.nn.modules.linear:Linear"


def test_tied_weights_are_stored_once_and_outputs_keep_their_names(blobs, layout):
    model = Tied()
    tokens = torch.randint(0, 11, (2, 5))
    found = package(model, {"tokens": tokens}, blobs, layout, name="tied")
    manifest = read_package(blobs, found.digest)
    assert manifest.tied == {"head.weight": "embed.weight"}
    assert manifest.files["weights"].bytes < 2 * 11 * 4 * 4
    result = open_package(blobs, found.digest, layout)(tokens)
    assert list(result) == ["scores"]
    assert torch.allclose(result["scores"], model(tokens)["scores"], atol=1e-5)


def test_a_model_that_cannot_be_exported_says_what_is_published_instead(blobs, layout):
    found = package(Branching(), {"x": torch.rand(2, 2)}, blobs, layout, name="branching")
    assert found.summary["files"] == ["example", "weights"]
    assert len(found.notes) == 1
    assert "torch.export does not convert it" in found.notes[0]
    assert "published are the weights and the name of the class" in found.notes[0]
    assert found.summary["notes"] == found.notes


def test_an_onnx_file_that_differs_from_the_model_is_left_out(blobs, layout, net, monkeypatch):
    monkeypatch.setattr("penstock.registry.onnx_file.TOLERANCE", -1.0)
    found = package(net, {"image": torch.rand(2, 8, 8)}, blobs, layout, name="strict")
    assert "onnx" not in found.summary["files"]
    assert any("differ" in note for note in found.notes)


@pytest.mark.parametrize(
    ("example", "inputs", "wanted"),
    [
        ({"input": torch.rand(2, 4)}, None, "input"),
        ({"image": torch.rand(2, 4), "label": torch.tensor([0, 1])}, None, "image"),
        ({"image": torch.rand(2, 4), "key": ["a", "b"]}, None, "image"),
        ({"a": torch.rand(2, 4), "b": torch.rand(2, 4)}, ["b"], "b"),
        (torch.rand(2, 4), None, "input"),
        (np.zeros((2, 4), np.float32), None, "input"),
        ((torch.rand(2, 4),), None, "input"),
    ],
)
def test_inputs_are_found_by_the_rule(example, inputs, wanted):
    from penstock.registry.binding import bind

    bound = bind(nn.Linear(4, 2), example, inputs)
    assert [(each.place.name, each.place.parameter) for each in bound] == [(wanted, "input")]


@pytest.mark.parametrize(
    ("example", "inputs", "said"),
    [
        ({"a": torch.rand(2, 4), "b": torch.rand(2, 4)}, None, "forward takes input"),
        ({"label": torch.tensor([0, 1])}, None, "which tensors go into Linear"),
        ({"image": torch.rand(2, 4)}, ["images"], 'Did you mean "image"?'),
        ({"a": torch.rand(2, 4), "b": torch.rand(2, 4)}, ["a", "b"], "forward takes 1"),
        ("image", None, "an example is a dict of tensors"),
        ({"input": torch.tensor(1.0)}, None, "do not share a batch axis"),
        ({"input": torch.rand(0, 4)}, None, "at least one row"),
        ({"input": torch.rand(2, 5)}, None, "does not run on the example"),
    ],
)
def test_an_example_that_does_not_fit_is_one_clear_error(blobs, example, inputs, said):
    before = len(list(blobs.list()))
    with pytest.raises(BadInput) as caught:
        package(nn.Linear(4, 2), example, blobs, name="x", inputs=inputs)
    assert said in str(caught.value) and caught.value.fix
    assert len(list(blobs.list())) == before


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda y: "text", "returns str"),
        (lambda y: {"a": [y]}, "no signature"),
        (lambda y: y.to(torch.bfloat16), "clients without torch"),
        (lambda y: {f"rows_{len(y)}": y}, "another batch size"),
    ],
)
def test_outputs_without_a_signature_are_refused(blobs, what, said):
    with pytest.raises(BadInput, match=said):
        package(Returns(what), {"x": torch.rand(2, 2)}, blobs, name="x")


def test_a_model_that_cannot_be_copied_is_refused(blobs):
    model = nn.Linear(2, 2)
    model.lock = __import__("threading").Lock()
    with pytest.raises(CannotTravel, match="cannot be copied"):
        package(model, {"input": torch.rand(2, 2)}, blobs, name="x")


@pytest.mark.parametrize("at", range(5))
def test_a_full_disk_is_an_error_and_not_a_note(layout, net, monkeypatch, at):
    blobs = open_blobs("memory://")
    put, count = blobs.put, iter(range(10))

    def full(data):
        if next(count) == at:
            raise DiskFull("no room left", "Free space.")
        return put(data)

    monkeypatch.setattr(blobs, "put", full)
    with pytest.raises(DiskFull):
        package(net, {"image": torch.rand(2, 8, 8)}, blobs, layout, name="full")


def test_no_module_is_no_model(blobs):
    with pytest.raises(BadInput, match=r"torch\.nn\.Module"):
        package(lambda x: x, {"x": torch.rand(2, 2)}, blobs, name="x")


def test_sizes_that_follow_the_batch_are_told_from_those_that_do_not(blobs):
    model = Returns(lambda y: (y, y.T, y.sum()))
    found = package(model, {"x": torch.rand(2, 2)}, blobs, name="x")
    assert [each["shape"] for each in found.summary["outputs"]] == [[-1, 2], [2, -1], []]
