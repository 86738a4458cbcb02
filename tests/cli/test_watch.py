"""`penstock runs watch`: one frame, and a screen that is left without touching the run."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from tests.cli.test_live_run import SCRIPT, until

from penstock.cli.accounts import bar


def test_a_frame_has_state_ledger_and_checkpoints(home, terminal):
    text = terminal("runs", "watch", "base", "--once")
    for word in ("base", "finished", "goodput", "start-up", "checkpoint", "step 180"):
        assert word in text
    assert max(len(line) for line in text.splitlines()) == 100
    found = terminal.json("runs", "watch", "base")
    assert found["live"]["step"] == 180
    assert found["account"]["state"] == "finished"


def test_an_account_of_what_is_no_training_is_refused(home, terminal):
    from penstock.base.settings import load_settings
    from penstock.jobs.stores import open_stores
    from penstock.records import Run

    with open_stores(load_settings()) as stores, stores.meta.write() as tx:
        tx.add_run(Run("run-ccc3", "made", "prepare", "finished", {}))
    for command in ("account", "watch"):
        error = terminal.json("runs", command, "made", expect=2)["error"]
        assert "no training" in error["what"]


def test_a_bar_is_as_wide_as_it_is_told_whatever_it_shows():
    for seconds in ({}, {"idle": 0.0}, {"hang": 1.0}, {"data": 1, "hang": 1, "idle": 1e-9}):
        for width in (1, 7, 60):
            assert bar(seconds, width).cell_len == width


@pytest.mark.long
@pytest.mark.torch
@pytest.mark.timeout(120)
def test_a_screen_shows_a_run_that_goes_on_and_ctrl_c_leaves_it_alone(terminal, tmp_path):
    (tmp_path / "fit.py").write_text(textwrap.dedent(SCRIPT).replace("int = 60", "int = 100000"))
    start = [sys.executable, "fit.py", "--workers", "1", "--name", "base", "--detach"]
    subprocess.run(start, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    try:
        until("steps", lambda: terminal.json("runs", "watch", "base")["live"]["pace"])
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "penstock.cli.main", "runs", "watch", "base"]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
        screen = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=tmp_path
        )
        os.close(slave)
        seen = _read(master, lambda text: text.count("goodput") >= 2)
        assert "train/loss" in seen and "steps/s" in seen and "running" in seen
        screen.send_signal(signal.SIGINT)
        _read(master, lambda _: screen.poll() is not None)
        assert screen.wait(timeout=10) == 0
        os.close(master)
        assert terminal.json("runs", "show", "base")["run"]["state"] == "running"
        terminal.json("runs", "stop", "base")
        until("the end", lambda: terminal.json("runs", "show", "base")["run"]["state"] == "stopped")
        assert "stopped" in terminal("runs", "watch", "base", "--once")
    finally:
        for pid in terminal("runs", "pids", "--role", "all").split():  # only when it failed
            os.kill(int(pid), signal.SIGKILL)


def _read(master: int, enough) -> str:
    """What the terminal got, until it is enough or nothing more comes."""
    text, deadline = "", time.monotonic() + 60
    while not enough(text):
        assert time.monotonic() < deadline, text
        if select.select([master], [], [], 0.1)[0]:
            try:
                text += os.read(master, 65536).decode(errors="replace")
            except OSError:  # the other end is closed
                return text
    return text
