"""The doctor finishes whatever it meets, changes nothing, and every complaint has a remedy."""

import importlib.metadata
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.base.settings import load_settings
from penstock.home import doctor
from penstock.home import machine as doors
from penstock.home.doctor import here, stores
from penstock.jobs import machine
from penstock.jobs.stores import open_stores


@pytest.fixture
def settings(tmp_path):
    return load_settings(folder=tmp_path, environment={}, home=tmp_path / "home")


def found(checks, name):
    return next(check for check in checks if check.name == name)


def test_a_healthy_machine_has_nothing_that_fails(settings):
    checks = doctor.look(settings)
    assert [check for check in checks if check.state == "fail"] == []
    assert found(checks, "home").state == "ok"


def test_looking_changes_nothing(settings):
    doctor.look(settings)
    assert not settings.home.exists()


# Each makes one thing wrong and is named after the check that must see it, with its state.


def low_on_memory(patch, home):
    patch.setattr(here, "memory_limit", lambda: (1 << 29, 1 << 28, "cgroup"))


def without_extras(patch, home):
    patch.setattr("importlib.util.find_spec", lambda name: None)


def without_shared_memory(patch, home):
    patch.setattr(here, "_SHM", home / "no-such-folder")


def behind_a_proxy(patch, home):
    for name in ("no_proxy", "NO_PROXY"):
        patch.delenv(name, raising=False)
    patch.setenv("http_proxy", "http://proxy.example:3128")


def with_files_from_the_future(patch, home):
    with open_stores(load_settings(folder=home.parent, environment={}, home=home)):
        pass
    ahead = time.time() + 7200
    os.utime(home / "meta.db", (ahead, ahead))


def with_a_torch_for_cpus_only(patch, home):
    with_gpus(patch, home)
    patch.setattr(here, "torch_without_cuda", lambda: "2.13.0+cpu")


def with_gpus(patch, home):
    for number in range(2):
        folder = home.parent / "driver" / f"0000:0{number}:00.0"
        folder.mkdir(parents=True)
        told = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 18\nGPU UUID: \t GPU-1\n"
        (folder / "information").write_text(told)
    patch.setitem(sys.modules, "pynvml", None)  # importing it fails, as where it is not installed
    patch.setattr(machine, "_DRIVER", home.parent / "driver")


@pytest.mark.parametrize(
    ("wrong", "name", "state", "told"),
    [
        (low_on_memory, "memory", "warn", "256"),
        (without_extras, "extra torch", "warn", "no training"),
        (without_extras, "extra onnx", "warn", "no serving"),
        (without_shared_memory, "shared memory", "fail", "No such file"),
        (behind_a_proxy, "ports", "warn", "http_proxy"),
        (with_files_from_the_future, "clock", "warn", "from the future"),
        (with_a_torch_for_cpus_only, "gpus", "warn", "2.13.0+cpu is a build for CPUs only"),
    ],
)
def test_every_complaint_has_a_fix(settings, monkeypatch, wrong, name, state, told):
    wrong(monkeypatch, settings.home)
    checks = doctor.look(settings)
    check = found(checks, name)
    assert (check.state, told in check.found) == (state, True), check
    assert all(each.fix for each in checks if each.state != "ok")


@pytest.mark.root
def test_a_small_disk_and_one_that_cannot_be_written_are_complaints(small_disk, monkeypatch):
    settings = load_settings(folder=small_disk, environment={}, home=small_disk / "home")
    monkeypatch.setattr(here, "_SHM", small_disk)
    checks = doctor.look(settings)
    assert (found(checks, "disk").state, found(checks, "shared memory").state) == ("fail", "warn")
    assert "256.0 KiB free" in found(checks, "disk").found
    subprocess.run(["mount", "-o", "remount,size=1g", small_disk], check=True)
    checks = doctor.look(settings)
    assert (found(checks, "disk").state, found(checks, "shared memory").state) == ("warn", "ok")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    check = found(doctor.look(settings), "home")
    assert (check.state, "cannot be written (tmpfs)" in check.found) == ("fail", True)
    assert "PENSTOCK_HOME" in check.fix


def test_gpus_are_named_as_the_driver_names_them(settings, monkeypatch):
    with_gpus(monkeypatch, settings.home)
    monkeypatch.setattr(here, "torch_without_cuda", lambda: None)
    check = found(doctor.look(settings), "gpus")
    assert (check.state, check.facts["count"]) == ("ok", 2)
    assert check.found == "NVIDIA H100 80GB HBM3, NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(
    ("cuda", "hip", "version"),
    [("None", "None", "2.13.0"), ("'12.8'", "None", None), ("None", "'6.4'", None)],
)
def test_what_torch_is_built_for_is_read_without_importing_it(
    tmp_path, monkeypatch, cuda, hip, version
):
    (tmp_path / "torch-2.13.0.dist-info").mkdir()
    (tmp_path / "torch-2.13.0.dist-info" / "METADATA").write_text("Name: torch\nVersion: 2.13.0\n")
    (tmp_path / "torch").mkdir()
    told = f"__version__ = '2.13.0'\ncuda: Optional[str] = {cuda}\nhip: Optional[str] = {hip}\n"
    (tmp_path / "torch" / "version.py").write_text(told)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert machine.torch_without_cuda() == version


def test_the_port_of_up_is_free_or_its_owner_is_named(settings, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(here, "UP_PORT", port)
        check = found(doctor.look(settings), f"port {port}")
        assert check.state == "warn"
        assert f"(pid {os.getpid()}) listens there" in check.found
        assert "--port 0" in check.fix
        monkeypatch.setattr(here, "listener", lambda port: None)  # of another user
        assert "by whom cannot be seen" in found(doctor.look(settings), f"port {port}").found
        mine = doors.Listener(77, "penstock", True)
        monkeypatch.setattr(here, "listener", lambda port: mine)
        check = found(doctor.look(settings), f"port {port}")
        assert (check.state, check.found) == ("ok", "`penstock up` (pid 77) listens there")
    assert found(doctor.look(settings), f"port {port}").found == "free for `penstock up`"


def test_every_extra_for_users_is_looked_at(settings):
    extras = set(importlib.metadata.metadata("penstock").get_all("Provides-Extra"))
    names = {check.name for check in doctor.look(settings)}
    assert {f"extra {extra}" for extra in extras - {"lint", "test", "interop"}} <= names


def test_an_extra_under_another_name_is_there(settings, monkeypatch):
    def version(name, real=importlib.metadata.version):
        if name == "onnxruntime":  # as with onnxruntime-gpu
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    checks = doctor.look(settings)
    assert found(checks, "extra onnx").state == found(checks, "extra demo").state == "ok"


def test_a_home_on_a_network_file_system_fails_once(settings, monkeypatch):
    mounts = (
        f"30 1 0:1 / / rw - ext4 /dev/x rw\n31 30 0:2 / {settings.home.parent} rw - nfs4 s:/x rw\n"
    )
    monkeypatch.setattr(stores, "mount_list", lambda: mounts)
    read_text = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda self, *a, **k: (
            mounts if str(self) == "/proc/self/mountinfo" else read_text(self, *a, **k)
        ),
    )
    failed = [check for check in doctor.look(settings) if check.state == "fail"]
    assert [check.name for check in failed] == ["home"]
    assert "nfs4" in failed[0].found
    assert "PENSTOCK_HOME" in failed[0].fix


def test_a_check_that_breaks_is_a_finding(settings, monkeypatch):
    def broken(settings):
        raise RuntimeError("no such thing")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (("broken", broken), *doctor.CHECKS))
    check = doctor.look(settings)[0]
    assert (check.name, check.state) == ("broken", "fail")
    assert "no such thing" in check.found


def test_a_token_is_never_shown(tmp_path):
    settings = load_settings(folder=tmp_path, environment={"PENSTOCK_TOKEN": "s3cr3t"})
    check = found(doctor.look(settings), "settings")
    assert "token" in check.found
    assert "s3cr3t" not in f"{check.found}{check.facts}"


def test_memory_is_the_tightest_limit_and_not_more_than_there_is():
    limit, used, source = machine.memory_limit()
    assert limit > 0
    assert used < limit
    assert source in ("machine", "cgroup")


def test_the_blob_store_of_the_home_is_only_looked_at(settings):
    check = found(doctor.look(settings), "blobs")
    assert (check.state, check.found) == ("ok", f"file://{settings.home}/blobs")


@pytest.mark.s3
def test_an_object_store_is_tried_out_and_left_as_it_was(tmp_path, s3):
    from penstock.blobs.remote.address import parse
    from penstock.blobs.remote.client import Client

    settings = load_settings(folder=tmp_path, environment={}, home=tmp_path / "home", blobs=s3)
    check = found(doctor.look(settings), "blobs")
    assert check.state == "ok"
    assert "honours conditional writes" in check.found
    assert next(Client(parse(s3)).list(), None) is None


@pytest.mark.s3
@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://no-such-bucket?endpoint={moto}", "no bucket"),
        ("s3://bucket?endpoint=http://127.0.0.1:1", "connection refused"),
        ("s3://me:hush@bucket", "credentials in it"),
    ],
)
def test_an_object_store_that_cannot_be_used_is_a_finding(tmp_path, moto, url, told):
    url = url.format(moto=moto)
    settings = load_settings(folder=tmp_path, environment={}, home=tmp_path / "home", blobs=url)
    checks = doctor.look(settings)
    check = found(checks, "blobs")
    assert (check.state, bool(check.fix)) == ("fail", True)
    assert told in check.found
    assert not any("hush" in f"{each.found} {each.fix} {each.facts}" for each in checks)
