"""Checkpoints as files of others, and back, without a bit changed and without running code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from penstock.base.errors import BadInput, CannotTravel, Conflict, NotFound
from penstock.base.settings import load_settings
from penstock.checkpoints import load, read_manifest, weights_digest
from penstock.cli.main import run as penstock
from penstock.home.gc import collect_garbage
from penstock.home.local import open_home
from penstock.jobs.stores import Stores, open_stores
from penstock.training import exporting, formats

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def stores(tmp_path):
    with open_stores(load_settings(tmp_path, {}, home=tmp_path / "home")) as opened:
        yield opened


def states(seed: int = 1) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 5)).square().mean().backward()
    optimizer.step()
    return {"model": dict(model.state_dict()), "optimizer": optimizer.state_dict()}


def tracked(stores: Stores, name: str) -> dict[str, Any]:
    with stores.meta.read() as db:
        [row] = db.checkpoints(db.newest_run(name, "train").id)
    found: dict[str, Any] = load(stores.blobs, read_manifest(stores.blobs, row.digest), 0, 1).shared
    return found["tracked"]


def digest(state: dict[str, Any]) -> str:
    return weights_digest(state)


@pytest.mark.parametrize(
    ("form", "name"), [("torch", "a.pt"), ("dcp", "a"), ("safetensors", "a.safetensors")]
)
def test_what_goes_there_and_back_is_the_same(stores, tmp_path, form, name) -> None:
    before = states()
    torch.save(before, tmp_path / "first.pt")
    exporting.import_file(stores, "first", tmp_path / "first.pt", None, 40)
    origin, size = exporting.export(stores, "first@40", tmp_path / name, form)
    assert origin.text == "first@40" and size > 0
    exporting.import_file(stores, "second", tmp_path / name, None, 7)
    collect_garbage(stores, grace_seconds=0)
    after = tracked(stores, "second")
    assert digest(after["model"]) == digest(before["model"])
    if form != "safetensors":
        kept = {int(key): value for key, value in after["optimizer"]["state"].items()}
        for number, state in before["optimizer"]["state"].items():
            assert digest(kept[number]) == digest(state)
        assert after["optimizer"]["param_groups"] == before["optimizer"]["param_groups"]
    assert list(tmp_path.glob(".*")) == []


def test_others_read_the_files(stores, tmp_path) -> None:
    from safetensors.torch import load_file

    before = states()
    torch.save(before["model"], tmp_path / "bare.pt")
    exporting.import_file(stores, "bare", tmp_path / "bare.pt", None, 0)
    for form, name in (("torch", "b.pt"), ("safetensors", "b.safetensors"), ("dcp", "b")):
        exporting.export(stores, "bare", tmp_path / name, form)
    assert digest(torch.load(tmp_path / "b.pt", weights_only=True)["model"]) == digest(
        before["model"]
    )
    assert digest(load_file(tmp_path / "b.safetensors")) == digest(before["model"])
    target = {"model": {key: torch.zeros_like(value) for key, value in before["model"].items()}}
    dcp.load(target, storage_reader=dcp.FileSystemReader(tmp_path / "b"), no_dist=True)
    assert digest(target["model"]) == digest(before["model"])


def test_dcp_saves_into_a_home_and_loads_from_it(tmp_path) -> None:
    home = open_home(folder=tmp_path, environment={}, home=str(tmp_path / "home"))
    before = states()
    dcp.save(before, storage_writer=home.dcp_writer("mine", step=100), no_dist=True)
    with pytest.raises(Conflict, match="mine"):
        home.dcp_writer("mine")
    assert [view.whole for view in home.checkpoints("mine", verify=True)] == [True]
    target = {"model": {key: torch.zeros_like(value) for key, value in before["model"].items()}}
    dcp.load(target, storage_reader=home.dcp_reader("mine@100"), no_dist=True)
    assert digest(target["model"]) == digest(before["model"])
    with pytest.raises(NotFound):
        home.dcp_reader("mine@99")
    home.close()


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["torch", "dcp", "dcp value", "safetensors"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(stores, tmp_path, form) -> None:
    bomb, path = Bomb(tmp_path / "boom"), tmp_path / "file"
    if form == "dcp":
        path.mkdir()
        (path / ".metadata").write_bytes(pickle.dumps(bomb))
    elif form == "dcp value":
        dcp.save(
            {"a": torch.ones(1), "b": bomb}, storage_writer=dcp.FileSystemWriter(path), no_dist=True
        )
    else:
        path.write_bytes(pickle.dumps(bomb))
    with pytest.raises(BadInput, match="cannot be read as"):
        exporting.import_file(stores, "evil", path, form.split()[0], 0)
    assert not (tmp_path / "boom").exists()
    with stores.meta.read() as db:
        assert db.newest_run("evil", "train") is None


def test_what_cannot_be_is_one_clear_error_and_leaves_nothing(stores, tmp_path) -> None:
    torch.save({"optimizer": {"state": {}, "lr": 0.5}}, tmp_path / "o.pt")
    exporting.import_file(stores, "o", tmp_path / "o.pt", None, 0)
    with pytest.raises(Conflict, match="already"):
        exporting.import_file(stores, "o", tmp_path / "o.pt", None, 0)
    with pytest.raises(CannotTravel, match="no model"):
        exporting.export(stores, "o", tmp_path / "o.safetensors", "safetensors")
    with pytest.raises(BadInput, match="is there already"):
        exporting.export(stores, "o", tmp_path / "o.pt", "torch")
    with pytest.raises(BadInput, match="is no format"):
        exporting.export(stores, "o", tmp_path / "p", "pickle")
    with pytest.raises(BadInput, match="there is no"):
        exporting.import_file(stores, "p", tmp_path / "p", None, 0)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(BadInput, match="holds a list"):
        exporting.import_file(stores, "p", tmp_path / "list.pt", None, 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "list.pt", "o.pt"]


def test_the_commands_go_there_and_back(tmp_path, monkeypatch, capsys) -> None:
    import json

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    torch.save(states(), "first.pt")
    assert penstock(["runs", "import", "old", "first.pt", "--step", "30", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 30
    assert penstock(["runs", "export", "old@30", "out", "--format", "dcp"]) == 0
    assert "step 30" in capsys.readouterr().out
    assert formats.guess(Path("out")) == "dcp"
    assert penstock(["runs", "import", "again", "out"]) == 0
    assert "again@0" in capsys.readouterr().out
