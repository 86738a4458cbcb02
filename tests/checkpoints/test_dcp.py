"""torch.distributed.checkpoint reads our checkpoints through its own planners, and writes them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from tests.checkpoints.test_damage import file_of, rewrite
from torch.distributed.checkpoint.api import CheckpointException

import penstock.checkpoints as ck
from penstock.base.settings import load_settings
from penstock.blobs import Blobs
from penstock.checkpoints.dcp import Reader
from penstock.checkpoints.dcp_writing import Writer
from penstock.home.local import LocalHome

pytestmark = pytest.mark.filterwarnings("ignore")  # DCP says that it is not distributed


def written(blobs: Blobs, state: dict[str, Any], step: int = 7) -> ck.Manifest:
    """What DCP's planner and our writer make of a state, read back."""
    found: list[tuple[bytes, list[str], int]] = []
    writer = Writer(blobs, "run-a", step, lambda *told: found.append(told))
    dcp.save(state, storage_writer=writer, no_dist=True)
    [(manifest, refs, size)] = found
    parsed = ck.parse_manifest(manifest)
    assert refs == parsed.blobs and size == parsed.nbytes + len(manifest)
    return parsed


def zeros(state: Any) -> Any:
    """The same tree with nothing in it, for DCP to load into."""
    if isinstance(state, dict):
        return {key: zeros(value) for key, value in state.items()}
    if isinstance(state, list):
        return [zeros(value) for value in state]
    return torch.zeros_like(state) if isinstance(state, torch.Tensor) else None


def test_dcp_reads_what_ranks_of_a_run_wrote(blobs, save, trained, same) -> None:
    state = trained(3)
    checkpoint = save(blobs, {"tracked": state, "best": {}}, [{"rank": 0}, {"rank": 1}])
    manifest = ck.read_manifest(blobs, checkpoint.digest)
    target = zeros(state)
    target["model"] = dict(target["model"])
    dcp.load(target, storage_reader=Reader(blobs, manifest), no_dist=True)
    assert same(target["model"], dict(state["model"]))
    assert same(target["optimizer"], state["optimizer"])


def test_what_dcp_writes_is_a_checkpoint_like_any_other(blobs, trained, same) -> None:
    state = trained(4)
    manifest = written(blobs, state)
    loaded = ck.load(blobs, manifest, 0, 1).shared["tracked"]
    assert same(dict(loaded["model"]), dict(state["model"]))
    as_dcp_has_it = {str(key): value for key, value in state["optimizer"]["state"].items()}
    assert same(loaded["optimizer"]["state"], as_dcp_has_it)
    assert same(loaded["optimizer"]["param_groups"], state["optimizer"]["param_groups"])
    target = zeros(state)
    dcp.load(target, storage_reader=Reader(blobs, manifest), no_dist=True)
    assert same(dict(target["model"]), dict(state["model"]))


def test_dcp_gives_nothing_that_was_not_verified(blobs, trained) -> None:
    state = trained(5)
    manifest = written(blobs, state)
    path = file_of(blobs, manifest.parts[0].blob)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    rewrite(path, data)
    with pytest.raises(CheckpointException, match=r"shared\.tracked\..*its bytes have changed"):
        dcp.load(zeros(state), storage_reader=Reader(blobs, manifest), no_dist=True)


def gangs(home: Path, *words: object) -> list[list[int]]:
    """`dcp_gang.py`: how the ranks of each gang ended."""
    root = Path(__file__).parents[2]
    script = str(Path(__file__).with_name("dcp_gang.py"))
    done = subprocess.run(
        [sys.executable, script, str(home), *map(str, words)],
        capture_output=True, text=True, check=False, cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    print(done.stdout, done.stderr)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("ENDED")]
    return [[int(code) for code in line[1:]] for line in lines]


@pytest.mark.torch
@pytest.mark.parametrize("writers, readers", [(2, 1), pytest.param(1, 2, marks=pytest.mark.long)])
def test_ranks_of_dcp_save_and_others_load_at_another_sharding(
    tmp_path, writers: int, readers: int
) -> None:
    """Real gloo ranks: FSDP with its optimiser, a table cut by columns, plain values."""
    found = gangs(tmp_path, "save", "mine", writers, "load", "mine@100", readers)
    assert found == [[0] * writers, [0] * readers]
    home = LocalHome(load_settings(tmp_path, {}, home=tmp_path))
    [row] = home.checkpoints("mine", verify=True)
    home.close()
    assert row.whole and row.step == 100


@pytest.mark.torch
@pytest.mark.faults
@pytest.mark.long
def test_a_rank_of_dcp_that_dies_while_it_saves_leaves_no_checkpoint(tmp_path) -> None:
    again = gangs(tmp_path, "die", "mine", 2, "save", "mine", 2, "load", "mine@100", 1)
    assert again == [[1, -9], [0, 0], [0]]
