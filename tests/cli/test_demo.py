"""The demo, as `make demo` runs it: real kills, real damage, and the second time it reuses."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(300)]


def told(folder):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    done = subprocess.run(
        [sys.executable, "-m", "penstock.cli.main", "demo", "--json"],
        cwd=folder,
        env={**environment, "PENSTOCK_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_the_demo_holds_what_it_promises_and_reuses_the_second_time(tmp_path):
    first = told(tmp_path)
    assert first["bit_equal"] and first["weights"] == first["twin_weights"]
    assert first["run"] != first["twin_run"]
    assert first["killed_ranks"] == 3
    assert first["recovery_seconds"] > 0
    assert first["fell_back_to"] < first["damaged_checkpoint"]
    assert first["samples_lost"] == first["samples_repeated"] == first["keys_in_two_splits"] == 0
    accuracy = first["test_accuracy"]
    assert 0.95 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    assert first["gate"] == "PASS"
    assert first["blocked_gate"]["blocked"] and first["blocked_gate"]["accuracy"] < 0.5
    assert first["served_requests"] == accuracy["n"]
    assert first["failed_requests"] == 0
    assert first["served_equals_offline"]
    assert not first["reused"]
    second = told(tmp_path)
    assert second["reused"]
    changed = {key for key in first if first[key] != second[key]}
    assert changed <= {"reused", "reused_parts", "took_seconds"}
