from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap

import pytest
import torch

from penstock.base.errors import BadInput, Damaged, NotFound
from penstock.jobs.source import snapshot
from penstock.registry import load, open_package, package, read_package

SOURCE = textwrap.dedent(
    """
    import torch
    from branching_help import SIGN

    class Branching(torch.nn.Module):
        def __init__(self, width{default}):
            super().__init__()
            self.inner = torch.nn.Linear(2, width)

        def forward(self, x):
            return SIGN * self.inner(x) if x.sum() > 0 else self.inner(x)
    """
)


def commit(stores, made, name="digits-cnn", run="run-1"):
    with stores.meta.write() as meta:
        return meta.add_version("model", name, made.digest, f"run/{run}", made.summary, made.refs)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose model class cannot be exported.

    Gives the class, the digest of the source snapshot, and a function that spoils the tree.
    """

    def make(default, blobs):
        folder = tmp_path / "project"
        folder.mkdir()
        (folder / "branching_help.py").write_text("SIGN = -1\n")
        (folder / "branching_model.py").write_text(SOURCE.format(default=default))
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        module = importlib.import_module("branching_model")
        digest = snapshot(folder, blobs)

        def forget():
            for name in ("branching_help", "branching_model"):
                monkeypatch.delitem(sys.modules, name)
                (folder / f"{name}.py").write_text("raise RuntimeError('the tree was read')\n")

        return module.Branching, digest, forget

    return make


def test_a_reference_loads_the_version_that_it_means(stores, net):
    made = package(net, {"image": torch.rand(2, 8, 8)}, stores.blobs, name="digits-cnn")
    version = commit(stores, made)
    with stores.meta.write() as meta:
        meta.move_alias("model", "digits-cnn", "production", version.version, None)
    for reference in ("digits-cnn@production", "digits-cnn@1", "digits-cnn"):
        loaded = load(stores, reference)
        assert loaded.reference == "digits-cnn@1"
        assert loaded(torch.rand(5, 8, 8)).shape == (5, 10)


def test_an_unknown_model_offers_the_nearest(stores, net):
    commit(stores, package(net, {"image": torch.rand(2, 8, 8)}, stores.blobs, name="digits-cnn"))
    with pytest.raises(NotFound, match="digits-cnn"):
        load(stores, "digit-cnn")


def test_a_class_is_rebuilt_from_the_snapshot_and_not_from_the_working_tree(blobs, layout, project):
    kind, source, forget = project("=3", blobs)
    model = kind()
    made = package(model, torch.rand(2, 2), blobs, name="b", lineage={"source": source})
    forget()
    assert source in made.refs and len(made.refs) > 4, "the snapshot's files are needed too"
    loaded = open_package(blobs, made.digest, layout)
    assert loaded.runtime == "class"
    for rows in (torch.rand(4, 2), -torch.rand(4, 2)):
        assert torch.equal(loaded(rows), model(rows).detach())
    assert "branching_model" not in sys.modules


def test_a_class_with_arguments_asks_for_its_config(blobs, layout, project):
    kind, source, forget = project("", blobs)
    made = package(kind(3), torch.rand(2, 2), blobs, name="b", lineage={"source": source})
    forget()
    with pytest.raises(BadInput, match=r"config=\{…\}"):
        open_package(blobs, made.digest, layout)
    with pytest.raises(BadInput, match="the weights do not fit"):
        open_package(blobs, made.digest, layout, config={"width": 4})
    for config in ({"width": 3}, 3):
        loaded = open_package(blobs, made.digest, layout, config=config)
        assert loaded(torch.rand(1, 2)).shape == (1, 3)


def test_weights_only_says_why(blobs, layout):
    class Local(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    made = package(Local(), torch.rand(2, 2), blobs, name="local")
    assert len(made.notes) == 2
    with pytest.raises(BadInput, match="holds weights only") as caught:
        open_package(blobs, made.digest, layout)
    assert "defined inside a function" in caught.value.what


def test_a_runtime_that_the_package_lacks_is_refused(published, blobs, layout):
    with pytest.raises(BadInput, match='cannot be run as "class"') as caught:
        open_package(blobs, published.digest, layout, runtime="class")
    assert "It has: onnx, program" in caught.value.fix


def test_a_blob_that_is_no_package_is_damage(blobs, layout):
    with pytest.raises(Damaged, match="Package does not parse"):
        open_package(blobs, blobs.put(b'{"format": 1}'), layout)


def test_a_flipped_bit_in_a_file_is_damage(stores, net):
    made = package(net, {"image": torch.rand(2, 8, 8)}, stores.blobs, name="digits-cnn")
    commit(stores, made)
    path = stores.blobs.path(read_package(stores.blobs, made.digest).files["onnx"].digest)
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(Damaged):
        load(stores, "digits-cnn")


def test_the_room_loads_neither_torch_nor_onnx():
    code = (
        "import sys, penstock.registry; "
        "print([n for n in ('torch', 'onnx', 'onnxruntime', 'safetensors') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
