"""The keeper with real replicas: started, killed, replaced, drained; asked all the while."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from penstock import serving
from penstock.base import process
from penstock.base.errors import BadInput, NotFound, PenstockError, Unavailable

IMAGE = np.ones((2, 8), np.float32)


def ask(client: InferenceServerClient, name: str = "front") -> tuple[float, str]:
    """The first score, which tells the model, and the version that says it answered."""
    tensor = InferInput("image", [2, 8], "FP32")
    tensor.set_data_from_numpy(IMAGE)
    answer = client.infer(name, [tensor])
    return float(answer.as_numpy("scores")[0, 0]), answer.get_response().model_version


def row(stores: Any, name: str = "front") -> Any:
    with stores.meta.read() as meta:
        return meta.get_deployment(name)


def kinds(stores: Any, name: str = "front") -> list[str]:
    with stores.meta.read() as meta:
        found = meta.events(subject=f"deployment/{name}")
    return [each.kind for each in found if each.kind != "deployment.changed"]


@dataclass
class Traffic:
    """Threads that ask all the time, each over a connection of its own."""

    address: str
    answered: list[tuple[float, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)

    def _ask(self) -> None:
        with InferenceServerClient(
            self.address, channel_args=[("grpc.use_local_subchannel_pool", 1)]
        ) as client:
            while not self.ending.is_set():
                try:
                    self.answered.append(ask(client))
                except InferenceServerException as error:
                    self.failed.append(str(error))

    @contextlib.contextmanager
    def flowing(self, clients: int = 4) -> Iterator[Traffic]:
        threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.ending.set()
            for thread in threads:
                thread.join()


def test_a_deployment_answers_and_its_story_is_told(
    stores: Any, shelf: Any, quick: Any, until: Any
) -> None:
    shelf.linear()
    assert serving.deploy(stores, "front", "toy").state == "pending"
    with serving.foreground(stores, "front", pace=quick) as address:
        found = row(stores)
        assert (found.state, found.address, found.resolved) == ("ready", address, "toy@1")
        pid = found.detail["pid"]
        with InferenceServerClient(address) as client:
            assert ask(client)[1] == "1"
    assert process.start_time(pid) is None
    found = row(stores)
    assert (found.state, found.wanted, found.address) == ("pending", "up", None)
    assert kinds(stores) == [f"deployment.{k}" for k in ("wanted", "starting", "ready", "released")]
    with stores.meta.read() as meta:
        assert not serving.is_kept(meta, "front")


def test_the_same_wish_again_changes_nothing(stores: Any, shelf: Any) -> None:
    shelf.linear()
    first = serving.deploy(stores, "front", "toy")
    assert serving.deploy(stores, "front", "toy") == first
    shelf.linear(1.0)
    second = serving.deploy(stores, "front", "toy")
    assert (second.resolved, second.revision) == ("toy@2", first.revision + 1)


def test_an_unknown_model_or_an_impossible_name_is_refused(stores: Any, shelf: Any) -> None:
    shelf.linear()
    with pytest.raises(NotFound, match="toy"):
        serving.deploy(stores, "front", "tyo")
    with pytest.raises(BadInput):
        serving.deploy(stores, "../front", "toy")
    with pytest.raises(NotFound):
        serving.stop(stores, "front")


def test_a_rolling_replacement_fails_no_request(
    stores: Any, shelf: Any, quick: Any, until: Any
) -> None:
    for bias in range(4):
        shelf.linear(100.0 * bias)
    serving.deploy(stores, "front", "toy@1")
    with serving.foreground(stores, "front", pace=quick) as address:
        with Traffic(address).flowing() as traffic:
            for version in (2, 3, 4):
                serving.deploy(stores, "front", f"toy@{version}")
                assert serving.wait_ready(stores, "front").address == address
                until(lambda wanted=str(version): traffic.answered[-1][1] == wanted)
        assert traffic.failed == []
        assert {version for _, version in traffic.answered} == {"1", "2", "3", "4"}
        for score, version in traffic.answered:  # no answer of a model under another's name
            assert round(score / 100) == int(version) - 1
        pid = row(stores).detail["pid"]
    assert process.start_time(pid) is None


def test_after_the_replacement_the_old_replica_is_gone(
    stores: Any, shelf: Any, quick: Any, until: Any
) -> None:
    shelf.linear()
    shelf.linear(1.0)
    serving.deploy(stores, "front", "toy@1")
    with serving.foreground(stores, "front", pace=quick) as address:
        old = row(stores).detail["pid"]
        with InferenceServerClient(address) as client:
            ask(client)
            serving.deploy(stores, "front", "toy@2")
            new = serving.wait_ready(stores, "front").detail["pid"]
            until(lambda: process.start_time(old) is None)
            assert ask(client)[1] == "2"
        assert new != old


@pytest.mark.faults
def test_a_killed_replica_comes_back_on_the_same_port(
    stores: Any, shelf: Any, quick: Any, until: Any
) -> None:
    """Requests may fail between the kill and the restart; before and after it none does."""
    seed = int(os.environ.get("PENSTOCK_CHAOS_SEED", "0")) or random.randrange(1 << 30)
    print(f"PENSTOCK_CHAOS_SEED={seed}")
    dice = random.Random(seed)
    shelf.linear()
    serving.deploy(stores, "front", "toy")
    with serving.foreground(stores, "front", pace=quick) as address:
        for _ in range(2):
            pid = row(stores).detail["pid"]
            with Traffic(address).flowing(2) as traffic:
                enough = dice.randrange(1, 50)
                until(lambda t=traffic, n=enough: len(t.answered) >= n)
                assert traffic.failed == []
                os.kill(pid, signal.SIGKILL)
                until(lambda old=pid: (row(stores).detail["pid"] or old) != old)
                assert serving.wait_ready(stores, "front").address == address
            with InferenceServerClient(address) as client:
                assert ask(client)[1] == "1"
    assert kinds(stores).count("deployment.died") == 2


@pytest.mark.faults
def test_a_replica_that_hangs_is_replaced(stores: Any, shelf: Any, until: Any) -> None:
    shelf.linear()
    serving.deploy(stores, "front", "toy")
    with serving.foreground(stores, "front", pace=serving.Pace(silent_seconds=1.5)) as address:
        pid = row(stores).detail["pid"]
        os.kill(pid, signal.SIGSTOP)
        until(lambda: row(stores).detail["pid"] not in (None, pid))
        assert serving.wait_ready(stores, "front").address == address
        assert process.start_time(pid) is None
        with InferenceServerClient(address) as client:
            assert ask(client)[1] == "1"
    with stores.meta.read() as meta:
        found = meta.events(subject="deployment/front")
    [died] = [each.body for each in found if each.kind == "deployment.died"]
    assert died["cause"] == "hanging"


@pytest.mark.faults
def test_a_replica_that_dies_again_and_again_is_given_up_with_the_cause(
    stores: Any, shelf: Any, until: Any
) -> None:
    shelf.linear()
    serving.deploy(stores, "front", "toy")
    pace = serving.Pace(budget=2)
    with serving.foreground(stores, "front", pace=pace):
        for _ in range(2):
            pid = serving.wait_ready(stores, "front").detail["pid"]
            os.kill(pid, signal.SIGKILL)
            until(lambda old=pid: row(stores).detail["pid"] != old)
        until(lambda: row(stores).state == "failed")
        assert "SIGKILL" in row(stores).detail["error"]["what"]
        with pytest.raises(Unavailable, match="SIGKILL"):
            serving.wait_ready(stores, "front")
        serving.deploy(stores, "front", "toy")  # a new wish, a new budget
        assert serving.wait_ready(stores, "front").state == "ready"


def test_a_package_that_cannot_be_served_fails_at_once_and_says_why(
    stores: Any, shelf: Any, quick: Any
) -> None:
    version = shelf.linear()
    blob = stores.blobs.path(version.digest)
    blob.chmod(0o644)
    blob.write_bytes(b"{}")
    serving.deploy(stores, "front", "toy")
    with (
        pytest.raises(PenstockError) as caught,
        serving.foreground(stores, "front", pace=quick),
    ):
        pass
    assert caught.value.code == "damaged"
    assert kinds(stores).count("deployment.starting") == 1  # not retried


def test_when_the_new_version_cannot_be_served_the_old_goes_on(
    stores: Any, shelf: Any, quick: Any, until: Any
) -> None:
    shelf.linear()
    broken = shelf.linear(1.0)
    stores.blobs.path(broken.digest).chmod(0o644)
    stores.blobs.path(broken.digest).write_bytes(b"{}")
    serving.deploy(stores, "front", "toy@1")
    with serving.foreground(stores, "front", pace=quick) as address:
        serving.deploy(stores, "front", "toy@2")
        with pytest.raises(PenstockError):
            serving.wait_ready(stores, "front")
        found = row(stores)
        assert (found.state, found.detail["serving"]) == ("ready", "toy@1")
        assert found.detail["error"]["code"] == "damaged"
        with InferenceServerClient(address) as client:
            assert ask(client)[1] == "1"
        serving.deploy(stores, "front", "toy@2")  # tried again, not taken for done
        until(lambda: kinds(stores).count("deployment.replacement-failed") == 2)


def test_stopping_drains_and_the_deployment_can_come_back(
    stores: Any, shelf: Any, quick: Any, until: Any
) -> None:
    shelf.linear()
    serving.deploy(stores, "front", "toy")
    with serving.Keeper(stores, pace=quick):
        address = serving.wait_ready(stores, "front").address
        serving.stop(stores, "front")
        until(lambda: row(stores).state == "stopped" and row(stores).address is None)
        with InferenceServerClient(address) as client, pytest.raises(InferenceServerException):
            ask(client)
        serving.deploy(stores, "front", "toy")
        assert serving.wait_ready(stores, "front").state == "ready"
    assert serving.stop(stores, "front").state == "stopped"  # nobody keeps it: at once
    assert serving.stop(stores, "front").state == "stopped"


def test_two_keepers_never_keep_the_same_deployment(
    stores: Any, shelf: Any, quick: Any, until: Any
) -> None:
    for name in ("a", "b"):
        shelf.linear()
        serving.deploy(stores, name, "toy")
    with serving.Keeper(stores, pace=quick), serving.Keeper(stores, pace=quick):
        pids = {serving.wait_ready(stores, name).detail["pid"] for name in ("a", "b")}
        replicas = [
            child.pid
            for child in psutil.Process().children()
            if "penstock.serving.replica" in child.cmdline()
        ]
        assert sorted(pids) == sorted(replicas)


KEEPER = """
import sys
from penstock import serving
from penstock.base.settings import Settings
from penstock.jobs.stores import open_stores
stores = open_stores(Settings(home=sys.argv[1]))
with serving.foreground(stores, "front"):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.faults
def test_when_a_keeper_is_killed_the_next_one_takes_over_on_the_same_port(
    stores: Any, shelf: Any, quick: Any, until: Any
) -> None:
    shelf.linear()
    serving.deploy(stores, "front", "toy")
    keeper = subprocess.Popen(
        [sys.executable, "-c", KEEPER, str(stores.layout.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert keeper.stdout is not None
    assert keeper.stdout.readline() == b"ready\n"
    before = row(stores)
    with serving.foreground(stores, "front", pace=quick) as address:  # kept by the other
        assert address == before.address
        assert row(stores).detail["pid"] == before.detail["pid"]
        keeper.kill()
        keeper.wait()
        until(lambda: process.start_time(before.detail["pid"]) is None)
        until(lambda: row(stores).detail["pid"] not in (None, before.detail["pid"]))
        after = serving.wait_ready(stores, "front")
        assert after.address == before.address
        assert after.detail["generation"] == before.detail["generation"] + 1
        with InferenceServerClient(address) as client:
            assert ask(client)[1] == "1"


def test_a_keeper_that_lost_its_lease_ends_its_replicas_and_writes_nothing(
    stores: Any, shelf: Any, quick: Any, until: Any
) -> None:
    shelf.linear()
    serving.deploy(stores, "front", "toy")
    with serving.foreground(stores, "front", pace=quick):
        pid = row(stores).detail["pid"]
        with stores.meta.write() as meta:
            lease = meta.find_lease("deployment/front")
            meta.release_lease(lease)
            meta.take_lease("deployment/front", "elsewhere/boot/1/1", 60.0)
        count = len(kinds(stores))
        os.kill(pid, signal.SIGKILL)  # gives it something to write
        until(lambda: process.start_time(pid) is None)
        assert len(kinds(stores)) == count
    assert len(kinds(stores)) == count
