"""A home with something of everything, and the server over it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from onnx import TensorProto, helper
from starlette.testclient import TestClient

from penstock.base.settings import Settings
from penstock.home.local import LocalHome
from penstock.jobs.stores import Stores
from penstock.records import Evaluation, Run, Version, to_json
from penstock.registry.manifest import File, Package, Place
from penstock.registry.signature import Signature, TensorSpec
from penstock.server import create_app

LOOPBACK = "http://127.0.0.1:8700"


@pytest.fixture
def until() -> Callable[..., Any]:
    def _until(holds: Callable[[], Any], seconds: float = 30.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < deadline, f"not within {seconds} s"
            time.sleep(0.01)
        return found

    return _until


@pytest.fixture(scope="session")
def home_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    made = LocalHome(Settings(home=folder))
    fill(made.stores)
    made.close()
    return folder


@pytest.fixture
def home(home_once: Path, tmp_path: Path) -> Iterator[LocalHome]:
    """A copy, which is made in a tenth of the time."""
    made = LocalHome(Settings(home=Path(shutil.copytree(home_once, tmp_path / "home"))))
    yield made
    made.close()


@pytest.fixture
def client(home: LocalHome) -> Iterator[TestClient]:
    with TestClient(create_app(home), base_url=LOOPBACK) as made:
        yield made


def publish(stores: Stores, name: str, producer: str = "test") -> Version:
    """A model that gives back its input, published without torch."""
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 2]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", *zip(value))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data = model.SerializeToString(deterministic=True)
    blob = stores.blobs.put(data)
    signature = Signature(
        (TensorSpec("x", "float32", (-1, 2)),), (TensorSpec("y", "float32", (-1, 2)),)
    )
    package = Package(1, name, signature, {"onnx": File(blob, len(data))}, (Place("x", "x"),))
    digest = stores.blobs.put(to_json(package))
    with stores.meta.write() as meta:
        return meta.add_version("model", name, digest, f"{producer}/{name}", {}, [digest, blob])


def fill(stores: Stores) -> None:
    publish(stores, "toy", producer="run/run-1")
    publish(stores, "team/toy")
    report = stores.blobs.put(b'{"metrics":{},"slices":[],"gates":[]}')
    with stores.meta.write() as meta:
        spec = {"config": {"lr": 0.1}}
        meta.add_run(Run("run-1", "base", "train", "finished", spec, created_at=1.0))
        meta.add_run(Run("run-2", "team/base", "train", "failed", spec, created_at=2.0))
        meta.event("run/run-1", "run.finished", {"step": 7})
        meta.move_alias("model", "toy", "production", 1, None)
        meta.add_evaluation(
            Evaluation("eval-1", "key", "suite", "toy@1", "digits@1", report, True, 3.0), [report]
        )
    logs = stores.layout.logs("run-1")
    logs.mkdir(parents=True)
    (logs / "rank-0.log").write_text("first\nsecond\n")


@dataclass
class Up:
    """A running `penstock up` and what it said."""

    process: subprocess.Popen[str]
    url: str
    token: str | None
    errors: Path

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)


@pytest.fixture
def up(home: LocalHome, tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Start the server's process over the home; killed at the end if it still runs."""
    started: list[subprocess.Popen[str]] = []

    def _up(*extra: str, **environment: str) -> Up:
        command = [sys.executable, "-m", "penstock.server", "--home", home.where]
        command += ["--port", "0", "--json", *extra]
        errors = tmp_path / f"up-{len(started)}.log"
        with errors.open("w") as stream:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                cwd=tmp_path,
                env={**os.environ, **environment},
            )
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        said = json.loads(line) if line else {"url": "", "token": None}
        return Up(process, said["url"], said["token"], errors)

    yield _up
    for process in started:
        process.kill()
        process.wait()
