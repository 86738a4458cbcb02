"""Opening a home: what is made, what is refused, what is closed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.base.errors import BadInput, ReadOnly, Unavailable
from penstock.base.settings import Settings
from penstock.jobs.stores import open_stores


def test_a_fresh_home_is_made_and_git_leaves_it_alone(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"
    with open_stores(Settings(home=home)) as stores:
        digest = stores.blobs.put(b"x")
        with stores.meta.write() as writer:
            writer.refer("run/1", [digest])
    assert (home / ".gitignore").read_text() == "*\n"
    with open_stores(Settings(home=home)) as again, again.meta.read() as reader:
        assert reader.referenced([digest]) == {digest}
        assert again.blobs.get(digest) == b"x"
        assert again.layout.root == home


def test_what_is_in_the_home_already_stays(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("mine")
    open_stores(Settings(home=tmp_path)).close()
    assert (tmp_path / ".gitignore").read_text() == "mine"


def test_stores_may_lie_elsewhere(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", meta="memory://", blobs="memory://")
    with open_stores(settings) as stores:
        assert stores.meta.url.startswith("memory://")
        assert stores.blobs.url.startswith("memory://")
    assert [entry.name for entry in (tmp_path / "home").iterdir()] == [".gitignore"]


@pytest.mark.parametrize("which", ["meta", "blobs"])
def test_a_wrong_url_is_refused_before_anything_is_made(tmp_path: Path, which: str) -> None:
    with pytest.raises(BadInput):
        open_stores(Settings(home=tmp_path / "home", **{which: "ftp://x"}))
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_home_should_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(Unavailable, match="home"):
        open_stores(Settings(home=tmp_path / "home"))


@pytest.mark.root
def test_a_home_on_a_read_only_disk_is_refused(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", disk], check=True)
    try:
        with pytest.raises(ReadOnly):
            open_stores(Settings(home=disk / "home"))
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_two_commands_open_one_fresh_home_at_once(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from penstock.base.settings import Settings
from penstock.jobs.stores import open_stores
sys.stdin.readline()
with open_stores(Settings(home=Path("{tmp_path}/home"))) as stores:
    with stores.meta.write() as writer:
        writer.event("x", "opened")
"""
    openers = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) for _ in range(2)
    ]
    for opener in openers:
        opener.communicate(b"go\n")
    assert [opener.returncode for opener in openers] == [0, 0]
    with open_stores(Settings(home=tmp_path / "home")) as stores, stores.meta.read() as reader:
        assert reader.last_event() == 2
