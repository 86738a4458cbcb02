"""What a machine tells of itself; a part that cannot be looked at hides no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.jobs.probing import here, marking

PARTS = ("network", "names", "home", "shm", "memory", "cores", "gpus")


def test_this_machine_tells_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_NODE_HOME", str(tmp_path / "not" / "made"))
    found = here.facts("127.0.0.1", None, [])
    assert [found[part] for part in PARTS if "error" in found[part]] == []
    assert found["network"]["interface"] == "lo"
    assert found["names"]["address"] == "127.0.0.1" and found["names"]["seconds"] >= 0
    assert found["versions"]["penstock"] and found["versions"]["torch"]
    assert found["home"]["writable"] and found["home"]["free"] > 0
    assert 0 < found["cores"]["usable"] <= found["cores"]["count"]
    assert not (tmp_path / "not").exists()


def test_an_address_that_no_interface_has_is_said_and_the_rest_is_told() -> None:
    found = here.facts("192.0.2.1", None, [])
    assert "no interface with the address 192.0.2.1" in found["network"]["error"]
    assert "It has" in found["network"]["fix"] and found["network"]["code"] == "unavailable"
    assert found["memory"]["limit"] > 0


def test_interfaces_that_the_script_names_must_be_there() -> None:
    assert here.facts("127.0.0.1", None, ["lo", "=lo", "^ib"])["network"]["missing"] == []
    assert here.facts("127.0.0.1", None, ["ib9"])["network"]["missing"] == ["ib9"]


def test_a_folder_is_marked_while_it_is_looked_at(tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    with marking.marked(url) as marker:
        assert marker is not None and marking.is_seen(marker)
        found = here.facts("127.0.0.1", {"url": url, "marker": marker}, [])["blobs"]
        assert found["shared"] is True
    assert list(tmp_path.iterdir()) == [] and not marking.is_seen(marker)
    with marking.marked(f"file://{tmp_path}/nothing") as marker:
        assert marker is None and marking.is_seen(marker) is None
    with marking.marked("s3://bucket") as marker:
        assert marker is None


def test_a_store_that_lets_nobody_in_is_a_part_that_says_so() -> None:
    found = here.facts("127.0.0.1", {"url": "s3://me:hush@bucket"}, [])["blobs"]
    assert "credentials in it" in found["error"] and "hush" not in str(found)
