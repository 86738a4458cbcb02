"""Bad input is one clear error with its exit code, and nothing changes."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.base.hashing import digest_file


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file below a folder by its content; SQLite's own empty helpers do not count."""
    return {
        str(path.relative_to(folder)): digest_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "meta.db-shm" and path.stat().st_size
    }


def error_of(terminal, *arguments: str, expect: int) -> dict:
    """The error as machines see it; people see the same on stderr, and nothing on stdout."""
    error = terminal.json(*arguments, expect=expect)["error"]
    assert terminal(*arguments, expect=expect) == ""
    assert terminal.err.startswith(f"error [{error['code']}] ")
    assert error["fix"] in terminal.err
    return error


@pytest.mark.parametrize(
    ("arguments", "offered"),
    [
        (("runs", "show", "bas"), "base"),
        (("runs", "logs", "bose"), "base"),
        (("data", "show", "digit"), "digits"),
        (("data", "list", "digts"), "digits"),
        (("data", "show", "digits@7"), "1"),
        (("models", "show", "digits-cnm"), "digits-cnn"),
        (("models", "why", "digits-cnn@prod"), ""),
        (("models", "promote", "digit-cnn@1", "production"), "digits-cnn"),
        (("evals", "show", "eval-9"), "eval"),
        (("deployments", "show", "digits"), ""),
        (("deployments", "deploy", "digits", "digits-cn"), "digits-cnn"),
    ],
)
def test_an_unknown_reference_offers_the_nearest(home, terminal, arguments, offered):
    before = fingerprint(home)
    error = error_of(terminal, *arguments, expect=3)
    assert error["code"] == "not-found"
    assert offered in error["fix"]
    assert fingerprint(home) == before


def test_what_is_no_reference_is_refused(home, terminal):
    assert error_of(terminal, "data", "show", "../x", expect=2)["code"] == "bad-input"


@pytest.mark.parametrize(
    "arguments",
    [
        ("runs", "lst"),
        ("rnus",),
        ("runs", "list", "--limit", "many"),
        ("runs", "list", "--limit", "0"),
        ("runs", "stop"),
        ("runs", "list", "--nope"),
    ],
)
def test_a_wrong_command_line_is_bad_input(terminal, tmp_path, arguments):
    assert error_of(terminal, *arguments, expect=2)["code"] == "bad-input"
    assert not (tmp_path / "home").exists()


def test_an_unknown_setting_names_the_nearest(terminal, monkeypatch):
    monkeypatch.setenv("PENSTOCK_HOEM", "/x")
    error = error_of(terminal, "runs", "list", expect=2)
    assert error["code"] == "settings"
    assert '"home"' in error["fix"]


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("PENSTOCK_HOEM", "/x", '"home"'),
        ("PENSTOCK_LEASE_SECONDS", "soon", "How long a silent owner keeps its lease"),
    ],
)
def test_wrong_settings_are_a_finding_of_the_doctor(terminal, monkeypatch, variable, value, told):
    monkeypatch.setenv(variable, value)
    checks = {check["name"]: check for check in terminal.json("doctor", expect=1)}
    assert checks["settings"]["state"] == "fail"
    assert told in checks["settings"]["fix"]
    assert {"penstock", "memory", "ports", "gpus"} <= set(checks)
    assert not {"home", "meta", "blobs"} & set(checks)  # whose, cannot be told
    assert "1 failed" in terminal("doctor", expect=1)


def test_a_newer_schema_is_refused_and_untouched(home, terminal):
    db = sqlite3.connect(home / "meta.db")
    with db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    db.close()
    before = fingerprint(home)
    error = error_of(terminal, "runs", "list", expect=7)
    assert error["code"] == "newer-schema"
    assert "9999" in error["what"]
    assert fingerprint(home) == before
    checks = {check["name"]: check for check in terminal.json("doctor", expect=1)}
    assert checks["meta"]["state"] == "fail"
    assert fingerprint(home) == before


def test_a_network_home_is_refused_and_not_made(terminal, tmp_path, monkeypatch):
    from penstock.meta import network

    monkeypatch.setattr(network, "file_system", lambda path, mountinfo: ("nfs4", "/mnt"))
    error = error_of(terminal, "runs", "list", expect=7)
    assert error["code"] == "network-home"
    assert not (tmp_path / "home").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="mounts need root")
@pytest.mark.parametrize(
    "arguments",
    [("models", "promote", "digits-cnn@1", "production"), ("runs", "list"), ("gc",)],
)
def test_a_read_only_home_is_one_clear_error(home, arguments):
    refused(home, "-m", "penstock.cli.main", *arguments)


VERBS = """
import sys
import penstock as ps

def rows():
    return [{"x": 1}]

def fit(run):
    raise AssertionError("nothing is to be trained here")

def main():
    if sys.argv[1] == "prepare":
        ps.prepare("ones", rows)
    else:
        ps.train(fit, name="ones", workers=int(sys.argv[2]))

if __name__ == "__main__":
    ps.main(main)
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="mounts need root")
@pytest.mark.parametrize("arguments", [("prepare",), ("train", "2"), ("train", "0")])
def test_a_read_only_home_is_one_clear_error_for_scripts_too(home, arguments, tmp_path):
    (tmp_path / "verbs.py").write_text(VERBS)
    told = refused(home, str(tmp_path / "verbs.py"), *arguments)
    assert f"at:  {tmp_path / 'verbs.py'}:" in told


def refused(home: Path, *arguments: str) -> str:
    """What Python says where the home is a read-only mount: one error, and nothing changes."""
    before = fingerprint(home)
    script = (
        f"mount --bind {home} {home} && mount -o remount,ro,bind {home} && "
        f"exec {sys.executable} {' '.join(arguments)}"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        env={**os.environ, "PENSTOCK_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert done.stderr.startswith("error [read-only] ")
    assert "Traceback" not in done.stderr
    assert fingerprint(home) == before
    return done.stderr


def at_once(count: int, *arguments: str, home: Path) -> list[str]:
    """Start the same command several times at once; what each printed, all ending with 0."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "penstock.cli.main", *arguments],
            env={**os.environ, "PENSTOCK_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    printed = []
    for each in started:
        out, err = each.communicate(timeout=60)
        assert each.returncode == 0, err
        printed.append(out)
    return printed


def test_commands_that_change_the_same_thing_at_once_change_it_once(home):
    moved = at_once(4, "models", "promote", "digits-cnn@1", "production", "--json", home=home)
    assert len(set(moved)) == 1  # one move, one revision, told to all


def test_a_home_that_commands_make_at_once_is_whole(terminal, tmp_path):
    printed = at_once(4, "runs", "list", "--json", home=tmp_path / "home")
    assert {out.strip() for out in printed} == {"[]"}
