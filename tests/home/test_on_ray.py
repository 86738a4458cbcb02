"""The doctor and the status of a cluster, on real nodes of Ray: some well, some not."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.blobs.conftest import Proxy, Seen
from tests.postgres import Server
from tests.ray_nodes import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

Penstock = Callable[..., Any]
PROBE = "penstock-probe"  # as the doctor's processes are named


@pytest.fixture
def penstock(cluster: Cluster, tmp_path: Path) -> Penstock:
    """`penstock("doctor", "--cluster", code=0, PENSTOCK_BLOBS=…)`: what the command says as JSON,
    with the cluster as its engine, a folder as its blob store, and what else is given."""
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    own = {
        "PENSTOCK_HOME": str(tmp_path / "home"),
        "PENSTOCK_BLOBS": f"file://{blobs}",
        "PENSTOCK_ENGINE": f"ray:{cluster.address}",
    }

    def run(*arguments: str, code: int = 0, **given: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "penstock.cli.main", *arguments, "--json"],
            env=cluster.environment | own | given,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    return run


def of(checks: list[dict[str, Any]], node: str, name: str) -> dict[str, Any]:
    (found,) = [each for each in checks if each["node"] == node and each["name"] == name]
    return found


def nodes_of(checks: list[dict[str, Any]]) -> list[str]:
    return sorted({each["node"] for each in checks} - {""})


def test_every_node_is_looked_at_and_nothing_is_left_there(
    penstock: Penstock, cluster: Cluster, tmp_path: Path, postgres: Server
) -> None:
    for _ in range(2):
        cluster.add()
    checks = penstock("doctor", "--cluster", PENSTOCK_META=postgres.fresh())
    assert [each for each in checks if each["state"] == "fail"] == []
    nodes = nodes_of(checks)
    assert len(nodes) == 3  # the head too, though it has no room for ranks
    for node in nodes:
        assert of(checks, node, "from here")["facts"]["seconds"] > 0
        assert of(checks, node, "clock")["state"] == "ok"
        assert "from_database" in of(checks, node, "clock")["facts"]
        assert of(checks, node, "network")["facts"]["address"] == cluster.host
        assert of(checks, node, "blobs")["facts"]["shared"] is True
        assert of(checks, node, "node home")["facts"]["path"] == str(cluster.folder / "nodes")
    assert of(checks, "", "between nodes")["facts"]["ways"] == 6
    assert of(checks, "", "bandwidth")["facts"]["least"] > 0
    assert list((tmp_path / "blobs").iterdir()) == [] and not (tmp_path / "home").exists()
    _nothing_runs()


@pytest.mark.cluster
def test_rays_client_is_asked_from_outside_as_well(penstock: Penstock, cluster: Cluster) -> None:
    cluster.add()
    outside = {"PENSTOCK_ENGINE": f"ray://{cluster.host}:{cluster.client_port}"}
    checks = penstock("doctor", "--cluster", **outside)
    assert len(nodes_of(checks)) == 2
    assert of(checks, "", "between nodes")["facts"]["ways"] == 2
    view = penstock("cluster", "status", **outside)
    assert view["error"] is None
    assert sorted(each["total"]["cpus"] for each in view["nodes"] if each["total"]) == [0, 1]


def _nothing_runs() -> None:
    """No process of the doctor's lives on; Ray takes a moment to end actors of who left."""

    def left() -> list[psutil.Process]:
        there = psutil.process_iter(["name", "cmdline"])
        return [each for each in there if _is_probe(each.info)]

    deadline = time.monotonic() + 30
    while found := left():
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def _is_probe(found: dict[str, Any]) -> bool:
    words = " ".join(found["cmdline"] or [])
    return found["name"] == PROBE or "Examiner" in words or "penstock.jobs.probing" in words


def test_what_is_wrong_with_one_node_is_said_of_that_node(
    penstock: Penstock, cluster: Cluster, tmp_path: Path, moto: str, bucket: str
) -> None:
    """Another Penstock, another time, a node home in memory, keys that nobody knows."""
    elsewhere = tmp_path / "elsewhere"
    about = elsewhere / "penstock-0.0.9.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: penstock\nVersion: 0.0.9\n")
    late = "import time\nreal = time.time\ntime.time = lambda: real() + 7200\n"
    (elsewhere / "sitecustomize.py").write_text(late)
    proxy = Proxy(moto, _only_who_is_known)
    proxy.start()
    try:
        cluster.add()
        cluster.add(
            PYTHONPATH=str(elsewhere),
            PENSTOCK_NODE_HOME="/dev/shm/no-such-folder",
            AWS_ACCESS_KEY_ID="AKIDWRONG",
        )
        blobs = f"s3://{bucket}/p?endpoint={proxy.url}&region=us-east-1"
        checks = penstock("doctor", "--cluster", code=1, PENSTOCK_BLOBS=blobs)
    finally:
        proxy.stop()
    failed = [each for each in checks if each["state"] == "fail"]
    (sick,) = {each["node"] for each in failed}
    assert {each["name"] for each in failed} == {"versions", "clock", "blobs"}
    assert "penstock is 0.0.9 there" in of(checks, sick, "versions")["found"]
    assert 7190 < of(checks, sick, "clock")["facts"]["offset"] < 7210
    assert of(checks, sick, "blobs")["facts"]["code"] == "access-denied"
    assert "tmpfs" in of(checks, sick, "node home")["found"]
    assert all(each["fix"] for each in checks if each["state"] != "ok")
    assert len(nodes_of(checks)) == 3


def _only_who_is_known(seen: Seen) -> object:
    known = "AKIDTEST" in seen.headers.get("authorization", "")
    return None if known else (403, "InvalidAccessKeyId")


def test_a_node_that_stands_still_is_a_finding_and_the_others_are_looked_at(
    penstock: Penstock, cluster: Cluster
) -> None:
    cluster.add()
    still_node = cluster.add()
    still_node.freeze()
    checks = penstock("doctor", "--cluster", "--patience", "30", code=1)
    (still,) = [each for each in checks if each["state"] == "fail"]
    assert still["name"] == "node" and still["node"] and still["fix"]
    others = [node for node in nodes_of(checks) if node != still["node"]]
    assert len(others) == 2
    assert all(of(checks, node, "memory")["found"] for node in others)


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        ({"RAY_AUTH_TOKEN": "0" * 64}, "access-denied", "token"),
        ({"PENSTOCK_ENGINE": "ray:127.0.0.1:1"}, "unavailable", "127.0.0.1:1"),
    ],
)
def test_a_cluster_that_lets_nobody_in_or_is_not_there_is_a_finding_and_a_note(
    penstock: Penstock, given: dict[str, str], code: str, told: str
) -> None:
    checks = penstock("doctor", "--cluster", code=1, **given)
    (failed,) = [each for each in checks if each["state"] == "fail"]
    assert (failed["name"], failed["facts"]["code"]) == ("nodes", code), failed
    assert told in failed["found"] and failed["fix"]
    view = penstock("cluster", "status", **given)
    assert (view["error"]["code"], view["nodes"], view["runs"]) == (code, [], [])


@pytest.mark.cluster
@pytest.mark.torch
def test_the_status_tells_who_holds_what_and_who_waits_also_when_ray_is_not_asked(
    penstock: Penstock, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.add(cpus=2)
    (tmp_path / "train.py").write_text(SCRIPT)
    own = {
        "PENSTOCK_HOME": str(tmp_path / "home"),
        "PENSTOCK_BLOBS": f"file://{tmp_path}/blobs",
        "PENSTOCK_ENGINE": f"ray:{cluster.address}",
    }

    def start(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "train.py", name]
        return subprocess.Popen(command, cwd=tmp_path, env=cluster.environment | own)

    scripts = [start("first")]
    try:
        view = _until(penstock, lambda view: len(view["holds"]) == 1 and view["holds"][0]["ranks"])
        (node,) = [each for each in view["nodes"] if each["total"].get("cpus") == 2]
        (held,) = view["holds"]
        assert (held["name"], held["node"], held["ranks"]) == ("first", node["name"], [0, 1])
        assert held["resources"] == {"CPU": 2} and held["state"] == "created"
        assert (held["attempt"], held["generation"]) == (1, 1)
        assert node["free"]["cpus"] == 0 and node["state"] == "alive"
        scripts.append(start("second"))
        view = _until(penstock, lambda view: view["waits"])
        assert (view["waits"][0]["name"], len(view["holds"])) == ("second", 1)
        assert "2 ranks of 1 CPU" in view["waits"][0]["wanted"]
        assert [each["kind"] for each in view["faults"]] == ["places.waiting"]
        view = penstock("cluster", "status", PENSTOCK_ENGINE="ray:127.0.0.1:1")
        assert view["error"]["code"] == "unavailable" and view["nodes"] == []
        (held,) = view["holds"]
        assert (held["state"], held["ranks"]) == ("as rows say", [0, 1])
        assert [each["name"] for each in view["waits"]] == ["second"]
    finally:
        for script in reversed(scripts):
            script.terminate()
        for script in scripts:
            script.wait(60)


def _until(penstock: Penstock, holds: Callable[[Any], Any]) -> Any:
    deadline = time.monotonic() + 120
    while not holds(view := penstock("cluster", "status")):
        assert time.monotonic() < deadline, view
    return view


SCRIPT = """
import sys, time
import penstock as ps

def fit(run, config):
    import torch
    run.track(net=torch.nn.Linear(2, 2))
    for step in run.steps(100_000):
        time.sleep(0.05)

def main():
    ps.train(fit, {}, name=sys.argv[1], workers=2, threads=1, checkpoint_every=1000)

if __name__ == "__main__":
    ps.main(main)
"""
