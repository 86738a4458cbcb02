"""A torch.export file from storage can compute and nothing else."""

from __future__ import annotations

import io
import json
import pickle
import zipfile

import pytest

from penstock.base.errors import Damaged
from penstock.registry import read_package
from penstock.registry.program import from_bytes, screen

MODEL = "archive/models/model.json"


@pytest.fixture(scope="module")
def data(published, blobs):
    return blobs.get(read_package(blobs, published.digest).files["program"].digest)


def rewritten(data: bytes, change, extra=()) -> bytes:
    """The archive with `change(name, bytes)` applied to each file, and files added."""
    source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as made:
        for info in source.infolist():
            made.writestr(info.filename, change(info.filename, source.read(info)))
        for name, content in extra:
            made.writestr(name, content)
    return target.getvalue()


def in_model(change):
    """Change the graph's JSON."""

    def apply(name, content):
        if name != MODEL:
            return content
        model = json.loads(content)
        change(model)
        return json.dumps(model).encode()

    return apply


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle from storage was executed",))


def target(model):
    model["graph_module"]["graph"]["nodes"][0]["target"] = "torch.os.system"


def deep_target(model):
    model["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.add.__globals__"


def expression(model):
    sizes = next(iter(model["graph_module"]["graph"]["tensor_values"].values()))["sizes"]
    sizes[0] = {"as_expr": {"expr_str": "__import__('os').system('true')", "hint": None}}


def guard(model):
    model["guards_code"] = ["__import__('os').getpid() > 0"]


def kind_of_result(model):
    for each in model["graph_module"]["module_call_graph"]:
        if each["signature"]:
            each["signature"]["out_spec"] = (
                '[1, {"type": "my.Type", "context": "null", "children_spec": []}]'
            )


def pickled_weight(name, content):
    if not name.endswith("model_weights_config.json"):
        return content
    config = json.loads(content)
    next(iter(config["config"].values()))["use_pickle"] = True
    return json.dumps(config).encode()


def pickled_samples(name, content):
    return pickle.dumps(Trap()) if "sample_inputs" in name else content


def test_what_we_publish_passes(data):
    screen(data)
    assert from_bytes(data) is not None


@pytest.mark.parametrize(
    ("change", "extra", "said"),
    [
        (in_model(target), (), "torch.os.system"),
        (in_model(deep_target), (), "__globals__"),
        (in_model(expression), (), "__import__"),
        (in_model(guard), (), "guards as code"),
        (in_model(kind_of_result), (), "my.Type"),
        (pickled_weight, (), "pickled weights"),
        (pickled_samples, (), "pickled sample inputs"),
        (lambda _, c: c, [("archive/data/weights/model.pt", pickle.dumps(Trap()))], "model.pt"),
        (lambda _, c: c, [("archive/data/constants/custom_obj_0", b"")], "custom_obj_0"),
        (lambda _, c: c, [("archive/data/aotinductor/model/x.so", b"")], "x.so"),
    ],
)
def test_what_could_do_more_than_compute_is_refused(data, change, extra, said):
    with pytest.raises(Damaged) as caught:
        from_bytes(rewritten(data, change, extra))
    assert said in caught.value.what


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip at all"])
def test_what_is_no_program_is_refused(content):
    with pytest.raises(Damaged, match="no exported program"):
        screen(content)


def test_what_is_loaded_is_what_was_screened(data):
    """A name that is there twice is read once: screened and loaded are the same bytes."""
    bad = rewritten(data, in_model(target))
    worse = zipfile.ZipFile(io.BytesIO(bad)).read(MODEL)
    good = zipfile.ZipFile(io.BytesIO(data)).read(MODEL)
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = rewritten(bad, lambda _, c: c, [(MODEL, good)])
    assert worse != good
    assert from_bytes(twice) is not None
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = rewritten(data, lambda _, c: c, [(MODEL, worse)])
    with pytest.raises(Damaged, match=r"torch\.os\.system"):
        from_bytes(twice)
