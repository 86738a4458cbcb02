"""Paths of a home, and the private folder for sockets."""

from __future__ import annotations

import os
import stat
import tempfile

import pytest

from penstock.base.errors import Unavailable
from penstock.base.layout import Layout


@pytest.fixture
def layout(tmp_path, monkeypatch):
    with tempfile.TemporaryDirectory(prefix="ps-") as short:
        monkeypatch.setenv("XDG_RUNTIME_DIR", short)
        yield Layout(tmp_path / "home")


def test_asking_for_a_path_creates_nothing(layout):
    for path in (layout.shards, layout.sources, layout.tmp, layout.logs("r"), layout.signals("r")):
        assert path.is_relative_to(layout.root)
    assert layout.meta_url == f"sqlite:///{layout.root}/meta.db"
    assert layout.blobs_url == f"file://{layout.root}/blobs"
    assert not layout.root.exists()


def test_the_runtime_folder_is_private_and_short(layout):
    folder = layout.runtime("run-" + "x" * 80)
    for one in (folder, folder.parent):
        assert stat.S_IMODE(one.stat().st_mode) == 0o700
    assert len(folder.name) == 20
    assert layout.runtime("run-" + "x" * 80) == folder


def test_who_only_looks_for_a_runtime_folder_leaves_none(layout):
    folder = layout.runtime("looked for", create=False)
    assert not folder.exists()
    assert layout.runtime("looked for") == folder and folder.is_dir()
    folder.chmod(0o755)
    with pytest.raises(Unavailable):
        layout.runtime("looked for", create=False)
    folder.rmdir()


def test_a_socket_fits_whatever_the_temporary_folder_is_called(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    folder = Layout(tmp_path / "home").runtime("run")
    assert len(str(folder)) + 30 <= 107
    folder.rmdir()


def test_homes_and_keys_do_not_share_a_runtime_folder(layout):
    other = Layout(layout.root.with_name("other"))
    assert len({layout.runtime("a"), layout.runtime("b"), other.runtime("a")}) == 3


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o701])
def test_a_runtime_folder_that_others_can_enter_is_refused(layout, mode):
    folder = layout.runtime("a")
    folder.chmod(mode)
    with pytest.raises(Unavailable, match="not a private folder") as caught:
        layout.runtime("a")
    assert "XDG_RUNTIME_DIR" in caught.value.fix


def test_a_link_in_the_place_of_the_runtime_folder_is_refused(layout, tmp_path):
    top = layout.runtime("a").parent
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    target = layout.runtime("b")
    target.rmdir()
    target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unavailable):
        layout.runtime("b")
    assert list(top.iterdir())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give folders away")
def test_a_runtime_folder_of_somebody_else_is_refused(layout):
    os.chown(layout.runtime("a"), 12345, 12345)
    with pytest.raises(Unavailable):
        layout.runtime("a")
