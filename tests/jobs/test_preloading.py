"""An image has what was asked for, and nothing that could not be forked."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.jobs.wire import Channel

MODULES = {
    "good": "import numpy\nNAME = 'good'",  # its OpenBLAS has threads, which end before a fork
    "threads": "import threading, time\n"
    "for _ in range(2): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
    "raises": "raise ValueError('no licence')",
    "leaves": "import sys\nsys.exit('not today')",
    "gpu": "import sys, types\nsys.modules['torch'] = types.SimpleNamespace("
    "cuda=types.SimpleNamespace(is_initialized=lambda: True))",
    "last": "",
}
TELL = """
import json, os, sys

def main(channel, fds, payload):
    found = [name for name in payload if name in sys.modules]
    channel.send({"has": found, "threads": len(os.listdir("/proc/self/task"))})
"""


@pytest.fixture
def folder(tmp_path):
    for name, text in {**MODULES, "tell": TELL}.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


@pytest.fixture
def image(folder):
    """Starts an image with these modules; gives its process, its channel and its first word."""
    started = []

    def start(*modules):
        command = [sys.executable, "-m", "penstock.jobs.image"]
        channel, theirs = Channel.pair()
        with theirs:
            process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid()), *modules],
                pass_fds=[theirs.fileno()],
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "2"},
                stderr=(folder / "image.log").open("wb"),
            )
        started.append(process)
        return process, channel, channel.receive(60)[0]

    yield start
    for process in started:
        process.kill()
        process.wait()


def forked(channel, folder, *modules):
    """What a fork of it has."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    request = {"name": "fork", "log": str(folder / "log"), "entry": "tell:main", "env": {}}
    with theirs:
        message = {"fork": {**request, "key": "1", "payload": modules}}
        channel.send(message, (theirs.fileno(),))
    return Channel(mine).receive(20)[0]


def test_what_cannot_be_forked_is_left_out_and_said_and_the_rest_is_there(image, folder):
    process, channel, word = image(*MODULES)
    assert word["left_out"] == {
        "threads": "it started 2 threads",
        "raises": "ValueError: no licence",
        "leaves": "SystemExit: not today",
        "gpu": "it initialised CUDA",
    }
    assert forked(channel, folder, *MODULES) == {"has": ["good", "last"], "threads": 1}
    assert len(list(Path(f"/proc/{process.pid}/task").iterdir())) == 1
    said = (folder / "image.log").read_text()
    assert "threads is left out of the image: it started 2 threads" in said


def test_nothing_is_left_out_where_nothing_hinders(image, folder):
    _, channel, word = image("good", "last")
    assert word["left_out"] == {}
    assert forked(channel, folder, "good", "last")["has"] == ["good", "last"]
