"""The demo, as `make demo` runs it: real kills, real damage, and the second time it reuses."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest

from penstock.base.hashing import short
from penstock.home.verbs import connect

pytestmark = [pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(300)]

DEMO = ("-m", "penstock.cli.main", "demo")
# `penstock demo --slow` with less of a pause, so that nobody waits for minutes.
SLOWLY = (
    "-c",
    "import sys; from penstock.cli.demo import story; "
    "story._SLOW_PAUSE = 0.002; sys.exit(story.run(slow=True))",
)


def started(folder, *arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**environment, "PENSTOCK_HOME": str(folder / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(process):
    """What it printed, once it ended well."""
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, out + err
    return out


def killed_by_hand(folder):
    """What README tells people to do in another terminal: kill all ranks, once."""
    with closing(connect(folder / "home")) as home:
        deadline = time.monotonic() + 120
        while not (home.runs(name="slow") and home.run("slow").checkpoints):
            assert time.monotonic() < deadline, "no checkpoint of the slow run"
            time.sleep(0.05)
        ranks = [each.pid for each in home.pids("slow") if each.role == "rank"]
        for pid in ranks:
            os.kill(pid, signal.SIGKILL)
    return len(ranks)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder in which the demo was run, and what it told as JSON."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, json.loads(told(started(folder, *DEMO, "--json")))


def test_the_demo_holds_what_it_promises_and_reuses_the_second_time(demo):
    folder, first = demo
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
    assert (first["ok"], first["fell_short"]) == (True, [])
    assert not first["reused"]

    second = told(started(folder, *DEMO)).splitlines()
    assert len(second) <= 25
    said = dict(line.split(maxsplit=1) for line in second if line[:1].isalpha())
    for word in ("data", "train", "proof", "eval"):
        assert said[word].endswith("(reused)")
    assert f"resumed at step {first['resumed_at']}" in "\n".join(second)
    assert f"weights sha256 {short(first['weights'])}" in said["proof"]
    assert "reused, with the figures of the first time" in said["took"]


@pytest.mark.long
def test_the_slow_demo_is_killed_by_hand_and_compares_its_weights_with_the_first(demo):
    folder, _ = demo
    slow = started(folder, *SLOWLY)
    try:
        assert killed_by_hand(folder) == 2
        lines = told(slow).splitlines()
    finally:
        slow.kill()
        slow.wait()
    assert "IDENTICAL" in lines[-1]
    with closing(connect(folder / "home")) as home:
        attempts = home.run("slow").attempts
    assert len(attempts) == 2
    assert "SIGKILL" in attempts[0].cause
    assert attempts[1].from_step > 0
