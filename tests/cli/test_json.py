"""Every command says the same to machines: JSON that any parser takes, on a home with content."""

from __future__ import annotations

import json
import queue
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import typer.main

from penstock.cli.main import app

ROOT = Path(__file__).parents[2]

# What each command is asked on the furnished home, with the exit code where it is not 0.
ASKED: dict[str, tuple[str, ...]] = {
    "cluster status": (),
    "data alias": ("points@1", "stable"),
    "data check": ("points", "points.toml"),
    "data diff": ("points@1",),
    "data expect": ("points",),
    "data explain": ("prepare.py",),
    "data export": ("points@1", "out"),
    "data gc": ("--dry-run",),
    "data head": ("points:test",),
    "data import": ("raw", "raw.csv", "--splits", "all=1"),
    "data lineage": ("points",),
    "data list": (),
    "data show": ("points",),
    "data stats": ("points",),
    "data tag": ("points@1", "gold"),
    "data verify": ("points",),
    "deployments deploy": ("front", "toy@1"),
    "deployments list": (),
    "deployments show": ("kept",),
    "deployments stop": ("kept",),
    "doctor": (),
    "evals list": (),
    "evals show": ("eval-3",),
    "events": (),
    "gc": ("--dry-run",),
    "models list": (),
    "models promote": ("toy@1", "staging"),
    "models show": ("toy",),
    "models why": ("toy@production",),
    "runs account": ("whole",),
    "runs list": (),
    "runs logs": ("whole",),
    "runs metrics": ("whole",),
    "runs pids": ("whole",),
    "runs queue": (),
    "runs show": ("whole",),
    "runs stop": ("wild",),
    "runs watch": ("whole",),
    "runs checkpoints": ("whole", "--verify"),
    "runs export": ("whole", "whole.pt"),
    "runs pin": ("whole@30",),
    "runs verify": ("whole",),
}
# Commands that need more than a home, and the test that parses what they say.
ELSEWHERE = {
    "demo": "cli/test_demo.py::test_the_demo_holds_what_it_promises_and_reuses_the_second_time",
    "deployments serve": "cli/test_json.py::test_serve_answers_the_call_in_flight_after_ctrl_c",
    "runs fork": "training/test_forks.py::"
    "test_a_fork_ends_as_its_parent_did_and_one_with_another_rate_differs_and_tells_why",
    "runs import": "training/test_exporting.py::test_the_commands_go_there_and_back",
    "runs unpin": "cli/test_commands.py::test_a_checkpoint_is_pinned_listed_and_unpinned",
    "runs resize": "cli/test_commands.py::test_a_run_with_a_range_is_asked_for_another_number",
    "runs resume": "cli/test_live_run.py::test_a_detached_run_is_steered_from_another_terminal",
    "runs retry": "cli/test_live_run.py::test_a_detached_run_is_steered_from_another_terminal",
    "runs study": "training/tuning/test_studies.py::test_the_command_answers_in_json_and_draws",
    "up": "cli/test_json.py::test_up_says_where_it_listens_and_ends_with_ctrl_c",
}
EMPTY = {"runs pids", "runs queue"}  # nothing is running


def commands(group, path: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}"


def strict(text: str):
    """As parsers of other languages read it: NaN and Infinity are no JSON."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_no_command_is_missing_here():
    assert sorted([*ASKED, *ELSEWHERE]) == sorted(commands(typer.main.get_command(app)))
    for path, _, name in (each.partition("::") for each in ELSEWHERE.values()):
        assert f"def {name}(" in (ROOT / "tests" / path).read_text()


@pytest.mark.parametrize("path", sorted(ASKED))
def test_a_command_answers_in_json(path, furnished, terminal):
    text = terminal(*path.split(), *ASKED[path], "--json")
    lines = text.splitlines() if path in ("events", "runs logs") else [text]
    found = [strict(line) for line in lines]
    assert found
    assert all(found) is (path not in EMPTY)


def test_a_number_that_is_none_is_null(furnished, terminal):
    series = strict(terminal("runs", "metrics", "whole", "--json"))
    assert series == {"loss": [[1, 0.5], [2, None], [3, None]]}
    assert strict(terminal("runs", "show", "whole", "--json"))["metrics"]["loss"] == [3, None]
    assert "nan" in terminal("runs", "metrics", "whole")


def test_why_follows_a_model_from_its_alias_to_the_function(furnished, terminal):
    found = terminal.json("models", "why", "toy@production")
    whats = [step["what"] for step in found["steps"]]
    assert whats == ["alias", "model", "evaluation", "run", "dataset", "function"]
    assert found["line"].startswith("production <- whole <- points@2 <- make_more")
    text = terminal("models", "why", "toy@production")
    assert text.splitlines()[0] == found["line"]
    assert "eval-3" in text


def test_a_whole_checkpoint_is_whole(furnished, terminal):
    (verdict,) = terminal.json("runs", "verify", "whole")
    assert (verdict["step"], verdict["whole"], verdict["damages"]) == (30, True, [])
    assert "whole" in terminal("runs", "verify", "whole")


@pytest.fixture
def stay(furnished, terminal) -> Iterator[Callable[..., tuple[Any, subprocess.Popen[str]]]]:
    """Start a command that stays; what it said first, and its process."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> tuple[Any, subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock.cli.main", *arguments, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        return strict(process.stdout.readline()), process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> None:
    """Cleanly, after Ctrl-C, and with nothing more to say to machines."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, ""), err
    assert "Traceback" not in err


def test_up_says_where_it_listens_and_ends_with_ctrl_c(stay):
    said, process = stay("up", "--port", "0")
    assert said["url"].startswith("http://127.0.0.1:")
    ended(process)


def test_serve_answers_the_call_in_flight_after_ctrl_c(stay, slow_model, terminal):
    said, process = stay("deployments", "serve", "front", slow_model)
    assert said["name"] == "front"
    metrics = terminal.json("deployments", "show", "front")["detail"]["metrics"]
    answers: queue.Queue[Any] = queue.Queue()
    tensor = triton.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.array([[3, 4]], np.float32))
    with triton.InferenceServerClient(said["address"]) as client:
        client.async_infer("front", [tensor], lambda result, error: answers.put((result, error)))
        until_in_flight(metrics)
        ended(process)
        result, error = answers.get(timeout=30)
    assert error is None
    assert result.as_numpy("y").tolist() == [[3, 4]]
    shown = terminal.json("deployments", "show", "front")
    assert (shown["state"], shown["wanted"]) == ("pending", "up")  # for the next who keeps it


def until_in_flight(metrics: str) -> None:
    """Wait until the replica has a call in its hands."""
    deadline = time.monotonic() + 30
    while not re.search(r"penstock_requests_in_flight{.*} 1", httpx.get(metrics).text):
        assert time.monotonic() < deadline, "the call did not arrive, or was answered too soon"
