"""How the doctor of a cluster and its status look, on a home with runs; nodes of Ray: `home/`."""

import pytest

from penstock.base.settings import load_settings
from penstock.cli import cluster as drawn
from penstock.home.views import ClusterView, HoldView, NodeView, WaitView
from penstock.jobs.stores import open_stores


def test_the_doctor_says_where_ranks_run_without_a_cluster(terminal, tmp_path):
    assert "ranks run on this machine" in terminal("doctor", "--cluster")
    assert not (tmp_path / "home").exists()


def test_findings_of_a_node_stand_below_its_name(terminal, monkeypatch):
    monkeypatch.setenv("PENSTOCK_ENGINE", "hosts:2")
    lines = terminal("doctor", "--cluster").splitlines()
    title = lines.index("127.0.0.1 (this machine)")
    assert any(line.split()[1] == "engine" for line in lines[:title] if line.strip())
    assert any("ranks use 127.0.0.1 on lo" in line for line in lines[title:])
    checks = terminal.json("doctor", "--cluster")
    assert {check["node"] for check in checks} == {"", "127.0.0.1 (this machine)"}


@pytest.mark.parametrize("patience", ["0", "soon"])
def test_a_patience_that_is_none_is_bad_input(terminal, patience):
    terminal("doctor", "--cluster", "--patience", patience, expect=2)


def test_a_wrong_engine_is_a_finding_of_the_doctor_and_an_error_of_the_status(
    terminal, monkeypatch, tmp_path
):
    monkeypatch.setenv("PENSTOCK_ENGINE", "kubernetes")
    assert "names none" in terminal("doctor", "--cluster", expect=1)
    terminal("cluster", "status", expect=2)
    assert "names none" in terminal.err


def test_the_status_has_the_runs_of_this_machine_and_what_befell_them(home, terminal):
    with (
        open_stores(load_settings(home.parent, {}, home=home)) as stores,
        stores.meta.write() as tx,
    ):
        tx.event("run/run-bbb2", "attempt.started", {"attempt": 2, "generation": 5})
        where = {"0": {"node": "node-1", "host": "10.0.0.1"}}
        where["1"] = where["2"] = {"node": "node-2", "host": "10.0.0.2"}
        tx.event("run/run-bbb2", "node.lost", {"node": "node-0", "why": "no sign of life"})
        tx.event("run/run-bbb2", "gang.started", {"where": where})
    view = terminal.json("cluster", "status")
    assert (view["engine"], view["error"], view["nodes"]) == ("processes", None, [])
    assert [run["name"] for run in view["runs"]] == ["wild"]
    held = [(each["agent"], each["node"], each["ranks"]) for each in view["holds"]]
    assert held == [("node-1", "10.0.0.1", [0]), ("node-2", "10.0.0.2", [1, 2])]
    assert {(each["attempt"], each["generation"]) for each in view["holds"]} == {(2, 5)}
    assert [each["kind"] for each in view["faults"]] == ["node.lost"]
    text = terminal("cluster", "status")
    assert "as rows say" in text and "no sign of life" in text
    assert any(line.startswith("wild") and "interrupted" in line for line in text.splitlines())


def test_a_status_from_rows_alone_says_that_it_is(capsys):
    from penstock.cli.draw import Drawing

    error = {"code": "unavailable", "what": "Ray did not answer", "fix": "Look.", "facts": {}}
    drawn._draw(Drawing(), ClusterView("ray://head:10001", 100.0, error=error))
    out = capsys.readouterr().out
    assert "the cluster does not answer: Ray did not answer" in out
    assert "fix: Look." in out and "from rows" in out


def test_a_status_has_a_line_for_each_node_hold_and_wait(capsys):
    from penstock.cli.draw import Drawing

    total, free = {"cpus": 8.0, "gpus": 2.0, "memory": 1 << 34}, {"cpus": 6.0, "memory": 1 << 33}
    nodes = [
        NodeView("10.0.0.1", "10.0.0.1", "one", "alive", total, free),
        NodeView("10.0.0.2", "10.0.0.2", "two", "leaving", total, free, 30.0),
        NodeView("10.0.0.3", "10.0.0.3", "", "dead"),
    ]
    holds = [HoldView("run-1", "", "node-1", "10.0.0.1", "created", [0], 1, 1, {"CPU": 2.0})]
    waits = [WaitView("run-2", "late", "2 ranks of 4 CPU", "10.0.0.1 (8 CPU)", 40.0)]
    drawn._draw(
        Drawing(), ClusterView("ray://head:10001", 100.0, nodes=nodes, holds=holds, waits=waits)
    )
    lines = capsys.readouterr().out.splitlines()
    (one,) = [line for line in lines if line.startswith("10.0.0.1")]
    assert "6 of 8" in one and "0 of 2" in one and "8.0 GiB of 16.0 GiB" in one
    assert any("leaving in 30 s" in line for line in lines)
    assert any("dead" in line for line in lines)
    assert any("of another home" in line and "2 CPU" in line for line in lines)
    assert any("late" in line and "1m ago" in line for line in lines)
