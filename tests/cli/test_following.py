"""Following: lines as they come, progress only for people, a clean end."""

import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from penstock.base.layout import Layout

COMMAND = [sys.executable, "-m", "penstock.cli.main"]


@pytest.fixture
def logged(home) -> Path:
    """The home, whose run "base" has the logs of two ranks and of its controller."""
    folder = Layout(home).logs("run-aaa1")
    folder.mkdir(parents=True)
    (folder / "rank-0.log").write_text("zero\n")
    (folder / "rank-1.log").write_text("one\n")
    (folder / "controller.log").write_text("decided\n")
    return home


def on_a_terminal(*arguments: str, command: Sequence[str] = COMMAND) -> tuple[int, str]:
    """Run a command as a person does; its exit code and all that the terminal got."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    started = subprocess.Popen(
        [*command, *arguments], stdin=slave, stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    seen = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # EIO: the other side is closed
            break
        if not piece:
            break
        seen += piece
    os.close(master)
    return started.wait(timeout=60), seen.decode()


def test_logs_are_those_of_the_ranks_or_of_one_or_of_all(logged, terminal):
    assert terminal("runs", "logs", "base").split("\n")[:2] == ["[rank-0] zero", "[rank-1] one"]
    assert terminal("runs", "logs", "base", "--rank", "1") == "one\n"
    assert "decided" in terminal("runs", "logs", "base", "--all")


def test_an_unknown_rank_is_one_clear_error(logged, terminal):
    error = terminal.json("runs", "logs", "base", "--rank", "7", expect=3)["error"]
    assert "rank 7" in error["what"]


def test_following_ends_when_the_run_has_ended(logged, terminal):
    lines = terminal("runs", "logs", "base", "-f", "--json").splitlines()
    assert [json.loads(line) for line in lines] == ["[rank-0] zero", "[rank-1] one"]


def test_a_terminal_gets_lines_and_colours(logged):
    code, seen = on_a_terminal("runs", "logs", "base", "-f")
    assert code == 0
    assert "[rank-0] zero" in seen
    code, seen = on_a_terminal("runs", "list")
    assert code == 0
    assert "\x1b[" in seen


SCRIPT = """
    import time
    import torch
    import penstock as ps

    def fit(run):
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run.track(model=model, optimizer=optimizer)
        for step in run.steps(60):
            run.backward(model(torch.ones(4, 2)).square().mean())
            run.step(optimizer)
            run.log({"train/loss": 0.125, "other": 3.0})
            time.sleep(0.05)

    if __name__ == "__main__":
        ps.main(lambda: ps.train(fit, name="base"))
    """


@pytest.mark.long
@pytest.mark.torch
def test_a_training_on_a_terminal_has_a_bar_with_its_step_and_newest_values(terminal, tmp_path):
    (tmp_path / "fit.py").write_text(textwrap.dedent(SCRIPT))
    code, seen = on_a_terminal("fit.py", command=[sys.executable])
    assert code == 0, seen
    assert seen.count("what its ranks print: penstock runs logs -f base") == 1
    assert "/60" in seen and "train/loss 0.125  other 3" in seen and "penstock/" not in seen
    code, seen = on_a_terminal("fit.py", command=[sys.executable])
    assert code == 0 and "reused run base" in seen and "/60" not in seen


def test_ctrl_c_ends_following_clean(home):
    started = subprocess.Popen(
        [*COMMAND, "events", "-f", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    assert json.loads(started.stdout.readline())["seq"] == 1
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 130
    assert "Traceback" not in err
