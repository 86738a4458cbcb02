"""Every step once in W&B's files, whatever dies in between. Offline: no account, no network."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.base.errors import Unavailable
from penstock.signals import read_scalars, reduce_scalars, wandb_files

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]
pytest.importorskip("wandb")

FORWARD = """
import sys
from pathlib import Path
from penstock.signals.wandb import Forwarder
config = {"lr": 0.1, "net": {"width": 8}}
forwarder = Forwarder(Path(sys.argv[1]), "penstock", "run-1", "base", config)
print("up", flush=True)
print(forwarder.poll(final="final" in sys.argv), flush=True)
sys.stdin.read()
forwarder.end(finished=True)
"""


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name.lower()))


def forward(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FORWARD, str(folder), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def there(place: Path) -> dict[tuple[str, int], float]:
    """(name, step) -> value in all files of the run, each once or the test fails."""
    found = {}
    for path in wandb_files.files(place, "run-1"):
        for row in wandb_files.rows(path):
            for name, value in row.items():
                if not name.startswith("_"):
                    assert (name, row["_step"]) not in found
                    found[name, row["_step"]] = value if value != "NaN" else math.nan
    return found


def reduced(folder: Path) -> dict[tuple[str, int], float]:
    rows = reduce_scalars(read_scalars(folder)).to_pylist()
    return {(row["name"], row["step"]): row["value"] for row in rows}


def services() -> set[int]:
    """Pids of W&B's own processes."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"wandb-core" in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def test_a_step_is_written_when_all_of_it_settled_and_the_next_forwarder_goes_on(
    folder, emitter, tmp_path
):
    ranks = [emitter(rank=rank) for rank in range(2)]
    for step in range(5):
        for rank, each in enumerate(ranks):
            each.scalar(step, "train/loss", 1.0 + 2 * rank)
    child = forward(folder)
    out, _ = child.communicate("")
    assert (child.returncode, out.split()) == (0, ["up", "4"])
    assert there(tmp_path) == {("train/loss", step): 2.0 for step in range(4)}
    ranks[0].scalar(5, "odd", 7.0)
    out, _ = forward(folder, "final").communicate("")
    assert out.split() == ["up", "2"]
    expected = {("train/loss", step): 2.0 for step in range(5)} | {("odd", 5): 7.0}
    assert there(tmp_path) == expected == reduced(folder)
    assert len(wandb_files.files(tmp_path, "run-1")) == 2


def test_the_config_and_the_run_are_those_of_ours(folder, emitter, tmp_path):
    from wandb.proto.wandb_internal_pb2 import Record

    emitter(rank=0).scalar(1, "a", 1.0)
    forward(folder, "final").communicate("")
    [path] = wandb_files.files(tmp_path, "run-1")
    records = [Record.FromString(data) for data in wandb_files._records(path.read_bytes())]
    [run] = [each.run for each in records if each.WhichOneof("record_type") == "run"]
    config = {each.key: each.value_json for each in run.config.update}
    assert (run.run_id, run.project, run.display_name) == ("run-1", "penstock", "base")
    assert config["lr"] == "0.1" and '"width": 8' in config["net"].replace(":8", ": 8")


def test_killed_anywhere_nothing_is_twice_and_nothing_is_lost_and_no_service_stays(
    folder, emitter, tmp_path
):
    before = services()
    told = emitter(rank=0)
    for step in range(2000):
        told.scalar(step, "a", float(step))
        told.scalar(step, "b", -float(step))
    for _ in range(3):
        child = forward(folder)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(random.uniform(0, 1.0))
        child.kill()
        child.communicate()
    out, _ = forward(folder, "final").communicate("")
    assert out.split()[0] == "up"
    assert there(tmp_path) == reduced(folder)
    end = time.monotonic() + 20
    while services() - before:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_torn_file_gives_what_is_whole(folder, emitter, tmp_path):
    told = emitter(rank=0)
    for step in range(3000):
        told.scalar(step, "a", float(step))
    forward(folder, "final").communicate("")
    [path] = wandb_files.files(tmp_path, "run-1")
    data = path.read_bytes()
    assert len(data) > 1 << 16, "several blocks"
    assert [row["_step"] for row in wandb_files.rows(path)] == list(range(3000))
    for _ in range(20):
        path.write_bytes(data[: random.randrange(len(data))])
        steps = [row["_step"] for row in wandb_files.rows(path)]
        assert steps == list(range(len(steps)))
    spoilt = bytearray(data)
    spoilt[len(data) // 2] ^= 1
    path.write_bytes(spoilt)
    steps = [row["_step"] for row in wandb_files.rows(path)]
    assert steps == list(range(len(steps))) and 0 < len(steps) < 3000


def test_a_place_that_cannot_be_written_is_one_clear_error(folder, tmp_path, monkeypatch):
    from penstock.signals.wandb import Forwarder

    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "file" / "wandb"))
    with pytest.raises(Unavailable, match="did not take scalars"):
        Forwarder(folder, "penstock", "run-1", "base", {})
