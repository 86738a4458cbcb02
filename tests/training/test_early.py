"""A script's note of how its last run began is a hint, and nothing else."""

import sys
from types import SimpleNamespace

import pytest

from penstock.base.layout import Layout
from penstock.training import early

SURROUNDINGS = {"preload": ["json"], "image_env": {"OMP_NUM_THREADS": "1"}}


@pytest.fixture
def begun(monkeypatch, tmp_path):
    """What a nursery was begun with, each time; this process is a script."""
    found = []
    monkeypatch.setattr(
        early.owner, "begin", lambda surroundings, later: found.append(surroundings)
    )
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=str(tmp_path / "a.py")))
    monkeypatch.chdir(tmp_path)
    return found


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "home")


@pytest.fixture
def here(tmp_path):
    return {**SURROUNDINGS, "cwd": str(tmp_path)}


def test_a_script_begins_as_its_last_run_did(layout, begun, here):
    assert not early.begin(layout)
    early.note(layout, {**here, "preload": []})
    early.note(layout, here)
    assert early.begin(layout)
    assert begun == [here]


def test_another_script_another_folder_and_a_run_without_ranks_begin_nothing(
    layout, begun, here, monkeypatch, tmp_path
):
    early.note(layout, here)
    with monkeypatch.context() as other:
        script = SimpleNamespace(__file__=str(tmp_path / "b.py"))
        other.setitem(sys.modules, "__main__", script)
        assert not early.begin(layout)
        other.setitem(sys.modules, "__main__", SimpleNamespace())  # a prompt
        early.note(layout, here)
        assert not early.begin(layout)
    with monkeypatch.context() as other:
        other.chdir(tmp_path.parent)
        assert not early.begin(layout)
    early.note(layout, None)
    assert not early.begin(layout)
    assert begun == []


def test_a_torn_note_begins_nothing(layout, begun, here):
    early.note(layout, here)
    (note,) = layout.starts.iterdir()
    whole = note.read_bytes()
    for torn in (b"", whole[:10], b"[]", b"{}"):
        note.write_bytes(torn)
        assert not early.begin(layout)
    early.note(layout, here)
    assert early.begin(layout)
