"""What the doctor makes of a cluster's facts, and what it says of engines without a cluster."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from tests.blobs.conftest import Proxy
from tests.postgres import Server

from penstock.base.settings import Settings, load_settings
from penstock.home.doctor import cluster, judging
from penstock.home.views import Check
from penstock.meta import open_meta

GIB = 1 << 30
VERSIONS = {"python": "3.11.7", "penstock": "0.1.0", "torch": "2.13.0", "ray": "2.60.0"}
HERE = {"versions": VERSIONS, "apart": None}


def well(name: str, address: str) -> dict[str, Any]:
    """The facts of a node that has everything."""
    return {
        "id": name,
        "address": address,
        "host": f"host-{name}",
        "cpus": 8.0,
        "gpus": 0.0,
        "draining": None,
        "error": None,
        "versions": dict(VERSIONS),
        "clock": {"offset": 0.001, "uncertainty": 0.002},
        "here": {"seconds": 0.0004},
        "reach": {},
        "facts": {
            "network": {"address": address, "interface": "eth0", "missing": [], "there": ["eth0"],
                        "mtu": 1500, "mbit": 10000, "up": True},
            "names": {"address": address, "seconds": 0.001},
            "home": {"path": "/scratch", "kind": "ext4", "writable": True, "network": False,
                     "free": 100 * GIB, "total": 200 * GIB},
            "shm": {"free": 8 * GIB, "total": 8 * GIB},
            "memory": {"limit": 64 * GIB, "free": 60 * GIB, "source": "machine"},
            "cores": {"count": 8, "quota": None, "usable": 8},
            "files": 65536,
            "gpus": {"driver": False, "names": [], "torch_for_cpus": None},
            "blobs": {"url": "s3://b", "seconds": 0.01, "conditional": True, "shared": None},
        },
    }  # fmt: skip


def report(**changes: Any) -> dict[str, Any]:
    """Two nodes that are well, which reach each other, but for what is changed of the first:
    `facts__home__free=0`."""
    first, second = well("one", "10.0.0.1"), well("two", "10.0.0.2")
    first["reach"], second["reach"] = {"two": {"seconds": 0.001}}, {"one": {"seconds": 0.002}}
    for path, value in changes.items():
        *parts, last = path.split("__")
        place = first
        for part in parts:
            place = place[part]
        place[last] = value
    lines = [
        {"from": "one", "to": "two", "bytes": 64 << 20, "seconds": 0.1},
        {"from": "two", "to": "one", "bytes": 64 << 20, "seconds": 0.2},
    ]
    return {"nodes": [first, second], "lines": lines}


def judged(found: dict[str, Any], here: dict[str, Any] = HERE) -> list[Check]:
    return list(judging.cluster(found, here))


def test_of_a_cluster_that_is_well_nothing_is_complained_of_and_each_node_is_told_of() -> None:
    checks = judged(report())
    assert {check.state for check in checks} == {"ok"}
    names = [check.name for check in checks if check.node == "10.0.0.1"]
    assert names == [check.name for check in checks if check.node == "10.0.0.2"]
    assert {"versions", "clock", "from here", "network", "node home", "blobs"} <= set(names)
    (between,) = [check for check in checks if check.name == "bandwidth"]
    assert "320.0 MiB/s at least, from 10.0.0.2 to 10.0.0.1" in between.found


COMPLAINTS = [
    ({"versions__python": "3.12.1"}, "versions", "fail", "python is 3.12 there and 3.11 here"),
    ({"versions__penstock": "0.0.9"}, "versions", "fail", "penstock is 0.0.9 there and 0.1.0"),
    ({"versions__ray": ""}, "versions", "fail", "ray is not installed there"),
    ({"versions__torch": ""}, "versions", "fail", "torch not installed"),
    ({"versions__torch": "2.12.0"}, "versions", "warn", "torch is 2.12.0 there and 2.13.0 here"),
    ({"clock": {"offset": 7200.0, "uncertainty": 0.01}}, "clock", "fail", "+7200.000 s"),
    ({"clock": {"offset": -3.0, "uncertainty": 0.01}}, "clock", "warn", "-3.000 s"),
    ({"here": {"error": "no answer within 3 s"}}, "from here", "fail", "does not reach a port"),
    ({"error": {"what": "no answer within 60 s", "fix": "", "code": "unavailable"}}, "node",
     "fail", "no answer within 60 s"),
    ({"draining": 30.0}, "node", "warn", "taken away in 30 s"),
    ({"reach": {"two": {"error": "connection refused"}}}, "others", "fail",
     "does not reach a port of 10.0.0.2: connection refused"),
    ({"facts__network": {"error": "no interface", "fix": "", "code": "unavailable"}}, "network",
     "fail", "no interface"),
    ({"facts__network__missing": ["ib9"]}, "network", "fail", "no interface ib9"),
    ({"facts__network__up": False}, "network", "fail", "is down"),
    ({"facts__names__seconds": 10.0}, "names", "warn", "looked up in 10.0 s"),
    ({"facts__home__writable": False}, "node home", "fail", "cannot be written"),
    ({"facts__home__free": 1 << 20}, "node home", "fail", "1.0 MiB free"),
    ({"facts__home__free": GIB}, "node home", "warn", "1.0 GiB free"),
    ({"facts__home__kind": "tmpfs"}, "node home", "warn", "shards take memory"),
    ({"facts__home__network": True}, "node home", "warn", "machines share"),
    ({"facts__shm__free": 64 << 20}, "shared memory", "warn", "64.0 MiB"),
    ({"facts__memory__free": GIB // 2}, "memory", "warn", "512.0 MiB"),
    ({"facts__cores": {"count": 8, "quota": 2.0, "usable": 2.0}}, "cores", "warn",
     "its cgroup allows 2"),
    ({"gpus": 8.0}, "gpus", "warn", "8 for ranks; the driver sees none"),
    ({"gpus": 1.0, "facts__gpus": {"driver": True, "names": ["H200"],
      "torch_for_cpus": "2.13.0+cpu"}}, "gpus", "warn", "sees none of it"),
    ({"facts__files": 1024}, "open files", "warn", "1024"),
    ({"facts__blobs": {"error": "denied", "fix": "", "code": "access-denied"}}, "blobs", "fail",
     "denied"),
    ({"facts__blobs__conditional": False}, "blobs", "warn", "ignores conditional writes"),
    ({"facts__blobs": {"url": "file:///b", "seconds": 0, "conditional": None, "shared": False}},
     "blobs", "fail", "not the folder"),
    ({"facts__blobs": {"url": "file:///b", "seconds": 0, "conditional": None, "shared": None}},
     "blobs", "warn", "cannot be told yet"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "name", "state", "told"), COMPLAINTS)
def test_each_complaint_is_of_its_node_alone_and_has_a_fix(
    changes: dict[str, Any], name: str, state: str, told: str
) -> None:
    checks = judged(report(**copy.deepcopy(changes)))
    (found,) = [check for check in checks if check.node and check.state != "ok"]
    assert (found.name, found.state, found.node) == (name, state, "10.0.0.1")
    assert told in found.found and found.fix


def test_what_differs_between_nodes_is_said_once() -> None:
    found = report(versions__torch="2.12.0", facts__network__mtu=9000)
    checks = {check.name: check for check in judged(found) if not check.node}
    assert checks["torch"].state == "fail"
    assert "2.12.0 on 10.0.0.1; 2.13.0 on 10.0.0.2" in checks["torch"].found
    assert (checks["MTU"].state, "9000 on 10.0.0.1" in checks["MTU"].found) == ("warn", True)


def test_a_slow_line_and_a_closed_one_are_said() -> None:
    found = report()
    found["lines"][0] |= {"seconds": 60.0}
    found["lines"][1] = {"from": "two", "to": "one", "error": "no answer within 3 s"}
    slow, closed = (check for check in judged(found) if check.state != "ok")
    if slow.state == "fail":
        slow, closed = closed, slow
    assert (slow.state, closed.state, closed.node) == ("warn", "fail", "10.0.0.2")
    assert "from 10.0.0.1 to 10.0.0.2" in slow.found


def test_a_clock_is_compared_with_the_databases_too() -> None:
    here = {**HERE, "apart": 5.0}  # this machine is ahead of it
    check = next(each for each in judged(report(), here) if each.name == "clock")
    assert "+5.001 s from the database's" in check.found


def test_what_the_exchange_leaves_open_counts_for_the_clock() -> None:
    found = report(clock={"offset": 62.0, "uncertainty": 3.0})
    assert next(each for each in judged(found) if each.name == "clock").state == "warn"
    found = report(clock={"offset": 62.0, "uncertainty": 61.5})
    assert next(each for each in judged(found) if each.name == "clock").state == "ok"


def test_nodes_of_one_address_have_names_of_their_own() -> None:
    nodes = [well("aaaaaaaa", "a"), well("bbbbbbbb", "a"), well("cccccccc", "c")]
    names = judging.names_of(nodes)
    assert sorted(names.values()) == ["a aaaaaa", "a bbbbbb", "c"]


def test_a_cluster_that_has_no_room_for_ranks_is_a_complaint() -> None:
    found = report()
    for node in found["nodes"]:
        node["cpus"] = 0.0
    assert [check.name for check in judged(found) if check.state == "fail"] == ["nodes"]


def test_a_node_known_by_a_loopback_address_is_no_use_to_others() -> None:
    found = report(address="127.0.0.1")
    (check,) = [each for each in judged(found) if each.state == "fail"]
    assert (check.name, check.node) == ("address", "127.0.0.1")


# engines without a cluster, and the stores


def settings_of(folder: Path, **given: Any) -> Settings:
    return load_settings(folder=folder, environment={}, home=folder / "home", **given)


def looked(settings: Settings) -> dict[str, Check]:
    told: list[str] = []
    found = cluster.look(settings, 5.0, told.append)
    assert told
    return {check.name: check for check in found}


def test_without_a_cluster_it_says_where_ranks_run(tmp_path: Path) -> None:
    found = looked(settings_of(tmp_path))
    assert [check.state for check in found.values()] == ["ok"] * len(found)
    assert "ranks run on this machine" in found["engine"].found
    assert "alone see its rows" in found["meta"].found
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("engine", ["hosts:2x4", "ray"])
def test_hosts_that_are_played_are_this_machine(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found = looked(settings_of(tmp_path, engine=engine))
    assert [check.name for check in found.values() if check.state == "fail"] == []
    assert found["network"].node == "127.0.0.1 (this machine)"
    assert "this machine" in found["engine"].found


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"engine": "kubernetes"}, "names none"),
        ({"engine": "ray://head:10001"}, "needs a blob store that all nodes reach"),
        ({"engine": "ray:head", "blobs": "s3://b"}, "names no cluster"),
    ],
)
def test_a_wrong_engine_is_a_finding_and_no_node_is_asked(
    tmp_path: Path, given: dict[str, Any], told: str
) -> None:
    found = cluster.look(settings_of(tmp_path, **given), 5.0, lambda what: None)
    (failed,) = [check for check in found if check.name == "engine"]
    assert (failed.state, told in failed.found, bool(failed.fix)) == ("fail", True, True)
    assert not [check for check in found if check.node]


def test_postgresql_tells_version_clock_and_connections(tmp_path: Path, postgres: Server) -> None:
    url = postgres.fresh()
    found = looked(settings_of(tmp_path, meta=url))
    assert "PostgreSQL 18" in found["meta"].found and "no tables yet" in found["meta"].found
    assert (found["clock"].state, abs(found["clock"].facts["offset"]) < 1) == ("ok", True)
    assert found["connections"].facts["most"] == 97
    open_meta(url).close()
    assert "schema 0" in looked(settings_of(tmp_path, meta=url))["meta"].found


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("postgresql://nobody@127.0.0.1:{}/postgres", "access-denied"),
        ("postgresql://tests@127.0.0.1:1/x", "store-unreachable"),
        ("postgresql://tests@127.0.0.1:{}/nothing", "bad-input"),
    ],
)
def test_a_database_that_cannot_be_used_is_a_finding(
    tmp_path: Path, postgres: Server, url: str, code: str
) -> None:
    found = looked(settings_of(tmp_path, meta=url.format(postgres.port)))
    assert (found["meta"].state, found["meta"].facts["code"]) == ("fail", code)
    assert found["meta"].fix


@pytest.mark.s3
def test_a_store_without_conditional_writes_is_said(tmp_path: Path, moto: str, bucket: str) -> None:
    proxy = Proxy(moto, lambda seen: "unconditional")
    proxy.start()
    try:
        blobs = f"s3://{bucket}/p?endpoint={proxy.url}"
        found = looked(settings_of(tmp_path, blobs=blobs))["blobs"]
        assert (found.state, "ignores conditional writes" in found.found) == ("warn", True)
        assert any("if-none-match" in seen.headers for seen in proxy.seen)
    finally:
        proxy.stop()
