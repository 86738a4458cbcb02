"""What any room's tests may ask for: a seed, deaths at a chosen line, small disks, an S3 server."""

from __future__ import annotations

import ctypes
import http.client
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from tests.hosts import needs_namespaces
from tests.postgres import Server
from tests.ray_hosts import RayHosts
from tests.ray_nodes import Cluster
from tests.spark_cluster import SparkCluster

# How long an example takes is the machine's matter, not the law's. For more of them than there is
# time for at every change: pytest --hypothesis-profile=thorough
for name, examples in (("penstock", 50), ("thorough", 500)):
    settings.register_profile(
        name,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        print_blob=True,
        max_examples=examples,
    )
settings.load_profile("penstock")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", help="K/N: only those tests that fall into part K (0..N-1) of N")


_CI_PATIENCE = 3  # deadlines are there for what hangs, and nobody knows how slow that machine is


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Which part a test falls into goes by its name, and never changes."""
    if "CI" in os.environ:
        for item in items:
            marker = item.get_closest_marker("timeout")
            seconds = float(marker.args[0] if marker else config.getini("timeout"))
            item.add_marker(pytest.mark.timeout(_CI_PATIENCE * seconds), append=False)
    if not (part := config.getoption("--part")):
        return
    number, of = map(int, part.split("/"))
    left_out = [item for item in items if zlib.crc32(item.nodeid.encode()) % of != number]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if zlib.crc32(item.nodeid.encode()) % of == number]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server on loopback; `.fresh()` is the URL of a new database."""
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def ray_head() -> Iterator[Cluster]:
    """A Ray cluster that has a head only; `cluster` gives it nodes."""
    found = Cluster()
    yield found
    found.close()


@pytest.fixture
def cluster(ray_head: Cluster) -> Iterator[Cluster]:
    """The cluster without any node; those that a test adds go with it."""
    yield ray_head
    ray_head.clear()


@pytest.fixture(scope="session")
def spark_cluster() -> Iterator[SparkCluster]:
    """A standalone Spark with two executors, and `.session`, this process's only one."""
    if "CI" not in os.environ:
        pytest.importorskip("pyspark", reason="the extra `spark` is not installed")
    found = SparkCluster()
    yield found
    found.close()


@pytest.fixture
def ray_hosts() -> Iterator[RayHosts]:
    """A Ray cluster on hosts in namespaces that has a head only; a test gives it nodes."""
    needs_namespaces()
    found = RayHosts()
    yield found
    found.close()


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("PENSTOCK_CHAOS_SEED", random.randrange(1 << 30)))
    print(f"PENSTOCK_CHAOS_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def in_child() -> Callable[..., int]:
    """`in_child(work, die_at=n, part=…)`: fork, do the work, SIGKILL the child before the n-th
    line in files whose path holds `part` (None: never); returns the child's wait status: 0 when
    it got through, 70 << 8 when the work raised."""

    def run(work: Callable[[], object], die_at: int | None = None, part: str = "penstock/") -> int:
        child = os.fork()
        if child == 0:
            try:
                if die_at is not None:
                    _trace(part, die_at)
                work()
                sys.settrace(None)
                os._exit(0)
            finally:
                os._exit(70)
        return os.waitpid(child, 0)[1]

    return run


def _trace(part: str, n: int) -> None:
    left = n

    def on_line(_frame: object, event: str, _argument: object) -> object:
        nonlocal left
        if event == "line":
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return on_line

    def on_call(frame: Any, _event: str, _argument: object) -> object:
        return on_line if part in frame.f_code.co_filename else None

    sys.settrace(on_call)


@pytest.fixture
def disk_size() -> str:
    """Of `small_disk`; a room that needs more overrides it."""
    return "256k"


@pytest.fixture
def small_disk(tmp_path: Path, disk_size: str) -> Iterator[Path]:
    """A file system of its own, of 256 KiB unless the room says otherwise."""
    if os.getuid() != 0:
        assert "CI" not in os.environ, "CI must run as root, or this fault goes untested"
        pytest.skip("needs root to mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={disk_size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """moto's S3 server in a process of its own, which dies with this one: http://127.0.0.1:PORT.

    While it runs, the environment has keys that it takes.
    """
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("wb") as stream, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        server = subprocess.Popen(command, stdout=stream, stderr=stream, preexec_fn=_die_with_me)
        try:
            yield _running(server, log)
        finally:
            server.kill()
            server.wait()


_buckets = itertools.count()


@pytest.fixture(scope="session")
def new_bucket(moto: str) -> Callable[[], str]:
    """`new_bucket()`: the name of one."""

    def run() -> str:
        name = f"bucket-{next(_buckets)}"
        connection = http.client.HTTPConnection(moto.removeprefix("http://"), timeout=30)
        connection.request("PUT", f"/{name}")
        assert connection.getresponse().status == 200
        connection.close()
        return name

    return run


@pytest.fixture
def bucket(new_bucket: Callable[[], str]) -> str:
    """The name of a new bucket."""
    return new_bucket()


@pytest.fixture
def s3(moto: str, bucket: str) -> str:
    """The URL of a new store on moto."""
    return f"s3://{bucket}/some/prefix?endpoint={moto}&region=us-east-1"


def _running(server: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        if found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text()):
            return found[1]
        time.sleep(0.02)
    raise AssertionError(f"moto does not start: {log.read_text()}")


def _die_with_me() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
