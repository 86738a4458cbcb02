"""The doctor finishes whatever it meets, changes nothing, and every complaint has a remedy."""

from pathlib import Path

import pytest

from penstock.base.settings import load_settings
from penstock.home import doctor, machine


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


def test_every_complaint_has_a_fix(settings, monkeypatch):
    monkeypatch.setattr(doctor, "memory_limit", lambda: (1 << 29, 1 << 28, "cgroup"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    bad = [check for check in doctor.look(settings) if check.state != "ok"]
    assert {"memory", "extra torch"} <= {check.name for check in bad}
    assert all(check.fix for check in bad)


def test_a_home_on_a_network_file_system_fails_once(settings, monkeypatch):
    mounts = (
        f"30 1 0:1 / / rw - ext4 /dev/x rw\n31 30 0:2 / {settings.home.parent} rw - nfs4 s:/x rw\n"
    )
    monkeypatch.setattr(doctor, "mount_list", lambda: mounts)
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
