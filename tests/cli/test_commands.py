"""Every command asks the home one question and shows the answer, to people and to machines."""

import json
import os

import pytest

from penstock.base.process import Identity
from penstock.base.settings import load_settings
from penstock.jobs.stores import open_stores
from penstock.records import Run


def test_runs_are_listed_newest_first_with_the_state_that_their_owner_gives_them(home, terminal):
    runs = terminal.json("runs", "list")
    assert [(run["name"], run["state"]) for run in runs] == [
        ("wild", "interrupted"),
        ("base", "finished"),
    ]
    assert runs[1]["workers"] == 2
    text = terminal("runs", "list").splitlines()
    assert text[0].split() == ["name", "work", "state", "step", "workers", "started", "took", "id"]
    assert "interrupted" in text[1]
    assert "finished" in text[2]


def test_runs_are_found_by_state_and_name(home, terminal):
    assert [r["id"] for r in terminal.json("runs", "list", "--state", "interrupted")] == [
        "run-bbb2"
    ]
    assert terminal.json("runs", "list", "--state", "running") == []
    assert [r["id"] for r in terminal.json("runs", "list", "base")] == ["run-aaa1"]


def test_interrupted_runs_are_found_behind_those_that_go_on(home, terminal):
    """More that run than are asked for, and one that was asked to stop when its owner died."""
    with open_stores(load_settings()) as stores, stores.meta.write() as tx:
        tx.add_run(Run("run-ccc3", "wild", "train", "stopping", {}))
        for number in range(5):
            tx.add_run(Run(f"run-ddd{number}", "going", "train", "running", {}))
            tx.take_lease(f"run/run-ddd{number}", str(Identity.mine()), 60.0)
    both = ("runs", "list", "--state", "interrupted", "--limit", "2")
    assert [run["id"] for run in terminal.json(*both)] == ["run-ccc3", "run-bbb2"]
    assert [run["id"] for run in terminal.json(*both[:-1], "1")] == ["run-ccc3"]
    assert len(terminal.json("runs", "list", "--state", "running", "--limit", "3")) == 3


def test_a_run_inside_its_script_has_no_logs_and_says_where_they_went(home, terminal):
    with open_stores(load_settings()) as stores, stores.meta.write() as tx:
        tx.add_run(Run("run-ccc3", "inside", "train", "finished", {"workers": 0}))
    for more in ((), ("-f",), ("--all",)):
        error = terminal.json("runs", "logs", "inside", *more, expect=3)["error"]
        assert "its own script printed everything" in error["what"]


def test_a_run_is_shown_with_its_history(home, terminal):
    run = terminal.json("runs", "show", "base")
    assert [attempt["cause"] for attempt in run["attempts"]] == ["rank 1 died by SIGKILL", None]
    assert [checkpoint["step"] for checkpoint in run["checkpoints"]] == [180]
    text = terminal("runs", "show", "run-a")
    assert "rank 1 died by SIGKILL" in text
    assert "lr=0.1" in text


def test_without_a_name_the_newest_run_is_meant(home, terminal):
    assert terminal.json("runs", "show")["run"]["name"] == "wild"


def test_pids_are_bare_so_that_kill_takes_them(home, terminal):
    assert terminal("runs", "pids").strip() == ""
    assert terminal.json("runs", "pids", "base") == []
    terminal("runs", "pids", "--role", "foo", expect=2)
    assert "'sidecar'" in terminal.err


def test_a_checkpoint_is_pinned_listed_and_unpinned(home, terminal):
    assert "pinned" in terminal("runs", "pin", "base@180", "--note", "for the paper")
    [listed] = terminal.json("runs", "checkpoints", "base")
    assert (listed["step"], listed["pinned"], listed["whole"]) == (180, "for the paper", None)
    assert "pinned: for the paper" in terminal("runs", "checkpoints", "base")
    assert "pinned: for the paper" in terminal("runs", "show", "base")
    assert terminal.json("runs", "unpin", "base@180")["pinned"] is None
    assert terminal.json("runs", "checkpoints", "base")[0]["pinned"] is None
    assert "is not pinned" in terminal.json("runs", "unpin", "base@180", expect=2)["error"]["what"]
    assert "no step" in terminal.json("runs", "pin", "base", expect=2)["error"]["what"]
    assert terminal.json("runs", "pin", "base@7", expect=3)["error"]["facts"]["steps"] == [180]


def test_checkpoints_are_verified_when_it_is_asked(home, terminal):
    [found] = terminal.json("runs", "checkpoints", "base", "--verify", expect=6)
    assert found["whole"] is False
    assert found["damages"][0]["what"].startswith("sha256:")
    assert "damaged" in terminal("runs", "checkpoints", "base", "--verify", expect=6)


def test_a_damaged_checkpoint_is_news_for_the_exit_code(home, terminal):
    verdicts = terminal.json("runs", "verify", "base", expect=6)
    assert [(each["step"], each["whole"]) for each in verdicts] == [(180, False)]


def test_a_run_with_a_range_is_asked_for_another_number(home, terminal):
    terminal("runs", "resize", "wild", "4", expect=2)
    assert "fixed number of ranks, 2" in terminal.err
    with open_stores(load_settings()) as stores, stores.meta.write() as tx:
        spec = tx.get_run("run-bbb2").spec
        tx.change_run("run-bbb2", spec={**spec, "elastic": {"low": 1, "high": 4}})
    assert terminal.json("runs", "resize", "wild", "4")["workers"] == 2  # until it goes on
    terminal("runs", "resize", "wild", "5", expect=2)
    assert "cannot have 5 ranks" in terminal.err
    with open_stores(load_settings()) as stores, stores.meta.read() as db:
        assert db.get_run("run-bbb2").spec["wanted"] == 4


def test_an_interrupted_run_that_is_stopped_is_stopped(home, terminal):
    assert terminal.json("runs", "stop", "wild")["state"] == "stopped"
    terminal("runs", "stop", "wild", expect=4)
    assert "stopped already" in terminal.err


def test_versions_are_listed_with_their_aliases(home, terminal):
    terminal("models", "promote", "digits-cnn@1", "production")
    models = terminal.json("models", "list")
    assert [(m["version"]["version"], m["aliases"]) for m in models] == [
        (2, []),
        (1, ["production"]),
    ]
    assert "digits@1" in terminal("data", "list", "digits")
    assert terminal.json("data", "show", "digits")["manifest"]["splits"] == {"train": {"rows": 3}}


def test_an_alias_moves_only_on_evidence(home, terminal):
    assert terminal.json("models", "promote", "digits-cnn@1", "production")["version"] == 1
    error = terminal.json("models", "promote", "digits-cnn@2", "production", expect=5)["error"]
    assert error["code"] == "refused"
    assert "below 0.95" in error["what"]
    wrong = ("models", "promote", "digits-cnn@2", "production", "--evidence", "eval-1")
    assert "eval-1" in terminal.json(*wrong, expect=5)["error"]["what"]
    assert terminal.json("models", "show", "digits-cnn@production")["version"]["version"] == 1


def test_evaluations_are_listed_and_shown(home, terminal):
    assert [e["id"] for e in terminal.json("evals", "list", "--model", "digits-cnn@1")] == [
        "eval-1"
    ]
    report = terminal.json("evals", "show", "eval-2")
    assert report["evaluation"]["passed"] is False
    assert report["metrics"]["accuracy"]["value"] == 0.1
    assert "blocked" in terminal("evals", "show", "eval-2")


def test_a_deployment_is_a_wish_until_somebody_keeps_it(home, terminal):
    assert terminal.json("deployments", "deploy", "digits", "digits-cnn@1")["state"] == "pending"
    assert terminal.json("deployments", "show", "digits")["resolved"] == "digits-cnn@1"
    assert "pending" in terminal("deployments", "list")
    assert terminal.json("deployments", "stop", "digits")["wanted"] == "down"


def test_events_come_in_commit_order_one_per_line(home, terminal):
    lines = [json.loads(line) for line in terminal("events", "--json").splitlines()]
    assert [line["seq"] for line in lines] == sorted(line["seq"] for line in lines)
    assert "run.finished" in terminal("events", "run/*")


def test_garbage_is_counted_before_it_is_removed(home, terminal):
    assert terminal.json("gc", "--dry-run")["purged"] == 0
    assert terminal.json("gc")["condemned"] == 0  # all is young, and wanted


def test_the_doctor_is_well_here(home, terminal):
    checks = terminal.json("doctor")
    assert {check["state"] for check in checks} <= {"ok", "warn"}
    assert "checks" in terminal("doctor")


def test_an_option_before_the_noun_holds_for_all(home, terminal, tmp_path):
    assert json.loads(terminal("--json", "runs", "list", "base"))[0]["name"] == "base"
    assert terminal.json("--home", str(tmp_path / "other"), "runs", "list") == []
    assert terminal.json("runs", "list", "--home", str(tmp_path / "other")) == []


def test_a_home_on_the_command_line_is_meant_from_here(home, terminal, tmp_path, monkeypatch):
    (tmp_path / "penstock.toml").touch()  # the project's folder is above
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    terminal("runs", "list", "--home", "mine")
    assert (tmp_path / "below" / "mine" / "meta.db").exists()
    assert len(terminal.json("runs", "list", "--home", "../home")) == 2


def test_text_of_users_is_never_read_as_markup(terminal):
    terminal("runs", "show", "[red]x[/red]", expect=3)
    assert "[red]x[/red]" in terminal.err


@pytest.mark.parametrize("arguments", [("--help",), ("runs", "--help"), ("runs", "list", "--help")])
def test_help_is_no_error(terminal, arguments):
    assert "Usage" in terminal(*arguments)


def test_the_version_is_told(terminal):
    assert terminal("--version").startswith("penstock 0.")


def test_ctrl_c_is_clean(home, terminal, monkeypatch):
    from penstock.home.local import LocalHome

    def interrupted(self, *_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalHome, "runs", interrupted)
    terminal("runs", "list", expect=130)


def test_a_fault_of_ours_is_one_message_too(home, terminal, monkeypatch):
    from penstock.home.local import LocalHome

    def broken(self, *_, **__):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(LocalHome, "runs", broken)
    terminal("runs", "list", expect=1)
    assert "unexpected ZeroDivisionError" in terminal.err
    assert "PENSTOCK_LOG_LEVEL=debug" in terminal.err
    assert os.environ.get("PENSTOCK_LOG_LEVEL") is None
