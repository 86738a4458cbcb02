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
