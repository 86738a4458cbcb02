"""The reporter of `make gpu-check`, where there is no GPU and as it would be with one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.gpu import check

ROW = {"scenario": "NVML", "figure": "utilisation", "value": 0.25, "unit": "", "device": "cuda"}


@pytest.mark.torch
def test_without_a_gpu_one_line_says_that_nothing_was_checked():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run(
        [sys.executable, "tests/gpu/check.py"], cwd=check.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 3 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "sees no CUDA device: nothing was checked" in line


@pytest.mark.parametrize("code", [0, 1, 5])
def test_figures_are_a_table_and_json_and_whatever_fails_is_the_exit_code(
    code, tmp_path, monkeypatch, capsys
):
    rows = [ROW, {**ROW, "figure": "memory in use", "value": 3.14159, "unit": "GB"}]
    facts = {"date": "today", "gpu": "NVIDIA H200", "torch": "2", "cuda": "13"}
    monkeypatch.setattr(check, "missing", lambda: None)
    monkeypatch.setattr(check, "run", lambda: (code, rows))
    monkeypatch.setattr(check, "surroundings", lambda: facts)
    assert check.main(["--json", str(tmp_path / "out.json")]) == int(code != 0)
    told = json.loads((tmp_path / "out.json").read_text())
    assert told["figures"] == rows and told["gpu"] == "NVIDIA H200"
    out = capsys.readouterr().out
    assert "NVML  utilisation        0.25\n      memory in use  3.142 GB\n" in out
    assert ("all hold" in out) and ("NOT all hold" in out) == (code != 0)


def test_it_collects_what_the_tests_tell(monkeypatch):
    def stand_in(command, cwd, env, check):
        assert (
            command[-3:] == ["-m", "gpu", "tests/gpu"]
            and str(Path(cwd, "src")) in env["PYTHONPATH"]
        )
        Path(env["GPU_CHECK_FIGURES"]).write_text(json.dumps(ROW) + "\n")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(check.subprocess, "run", stand_in)
    assert check.run() == (0, [ROW])
