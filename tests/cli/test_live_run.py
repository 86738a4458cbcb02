"""Steering a run from another terminal: pids, kill, stop, resume, logs, without losing a step."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(180)]

STEPS = 60
SCRIPT = """
    import time
    from dataclasses import dataclass
    import torch
    import penstock as ps

    @dataclass
    class Config:
        steps: int = 60
        pause: float = 0.05

    def fit(run: ps.Run, config: Config) -> None:
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run.track(model=model, optimizer=optimizer)
        for step in run.steps(config.steps):
            run.backward(model(torch.ones(4, 2)).square().mean())
            run.step(optimizer)
            run.log({"train/loss": float(step)})
            print("step", step, flush=True)
            time.sleep(config.pause)

    if __name__ == "__main__":
        ps.main(fit, Config)
    """


def until(what: str, holds: Callable[[], object], seconds: float = 60.0):
    """Poll until `holds` gives something true, and give that back."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.05)
    return found


@pytest.fixture
def script(tmp_path, terminal):
    (tmp_path / "fit.py").write_text(textwrap.dedent(SCRIPT))

    def start(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "fit.py", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    yield start
    for pid in terminal("runs", "pids", "--role", "all").split():  # only when the test failed
        os.kill(int(pid), signal.SIGKILL)


def test_a_detached_run_is_steered_from_another_terminal(terminal, script):
    done = script("--workers", "2", "--name", "base", "--detach", "--checkpoint-every", "5")
    assert done.returncode == 0, done.stderr
    assert "penstock runs logs -f base" in done.stderr

    def run():
        return terminal.json("runs", "show", "base")

    until("a checkpoint", lambda: run()["checkpoints"])
    for pid in terminal("runs", "pids").split():  # kill -9 $(penstock runs pids)
        os.kill(int(pid), signal.SIGKILL)
    until("the next attempt", lambda: len(run()["attempts"]) == 2)
    assert run()["attempts"][1]["from_step"] >= 5

    assert terminal.json("runs", "stop", "base")["state"] in ("stopping", "stopped")
    until("the stop", lambda: run()["run"]["state"] == "stopped")
    assert terminal("runs", "pids", "base", "--role", "all").strip() == ""
    stopped_at = run()["checkpoints"][0]["step"]
    assert 5 <= stopped_at < STEPS

    assert terminal.json("runs", "resume", "base")["name"] == "base"
    followed = terminal("runs", "logs", "base", "--rank", "0", "-f").splitlines()
    assert run()["run"]["state"] == "finished"
    assert followed[-1] == f"step {STEPS - 1}"
    assert run()["attempts"][-1]["from_step"] == stopped_at
    loss = terminal.json("runs", "metrics", "base", "train/loss")["train/loss"]
    assert [value for _, value in loss] == [float(step) for step in range(STEPS)]

    for again in ("resume", "retry"):
        error = terminal.json("runs", again, "base", expect=4)["error"]
        assert "finished" in error["what"]


@pytest.mark.long
def test_a_training_function_that_raises_shows_its_own_traceback_first(script, tmp_path):
    path = tmp_path / "fit.py"
    path.write_text(path.read_text().replace("time.sleep(config.pause)", "{}['missing']"))
    done = script("--workers", "2", "--name", "broken")
    assert done.returncode == 8
    traceback, _, message = done.stderr.partition("error [user-code]")
    assert "KeyError: 'missing'" in traceback
    assert "fit.py" in traceback
    assert "rank" in message
