"""The verbs of the facade on a real home: one line says what was reused, and why."""

import importlib.util

import numpy as np
import pytest

import penstock as ps


def rows():
    return [{"x": float(i), "label": i % 3} for i in range(40)]


def other_rows():
    return [{"x": float(i), "label": i % 5} for i in range(40)]


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def test_prepare_says_in_one_line_what_it_did_and_why(capsys):
    first = ps.prepare("numbers", rows)
    said = capsys.readouterr()
    assert (first.reference, first.reused) == ("numbers@1", False)
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "numbers" in said.err
    again = ps.prepare("numbers", rows)
    assert (again.reference, again.reused) == ("numbers@1", True)
    assert "reused" in capsys.readouterr().err
    assert ps.prepare("numbers", other_rows).reference == "numbers@2"


def test_opened_data_is_like_a_list_of_rows():
    ps.prepare("numbers", rows, splits={"train": 0.5, "test": 0.5})
    train, test = ps.open("numbers:train"), ps.open("numbers@1:test")
    assert len(train) + len(test) == 40
    table = train.to_arrow().to_pylist()
    fresh = ps.open("numbers:train")
    assert fresh[0] == table[0]
    assert fresh[-1] == table[-1]
    assert fresh[2:9:3] == table[2:9:3]
    assert fresh[::-1] == table[::-1]
    assert fresh[5:5] == []
    assert list(fresh) == table
    assert sorted(np.array([row["x"] for row in [*train[:], *test[:]]])) == list(range(40))
    with pytest.raises(IndexError):
        fresh[len(fresh)]


def test_opening_asks_for_a_split_where_there_are_several():
    ps.prepare("numbers", rows, splits={"train": 0.5, "test": 0.5})
    with pytest.raises(ps.errors.BadInput, match="several splits: train, test"):
        ps.open("numbers")
    with pytest.raises(ps.PenstockError) as caught:
        ps.open("numbers:trian")
    assert "train" in caught.value.fix


def test_what_is_not_there_offers_the_nearest():
    ps.prepare("numbers", rows)
    with pytest.raises(ps.errors.NotFound) as caught:
        ps.open("number")
    assert '"numbers"' in caught.value.fix


def test_a_changed_home_is_noticed(tmp_path, monkeypatch):
    ps.prepare("numbers", rows)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "other"))
    assert ps.connect().datasets() == []
    assert ps.prepare("numbers", rows).reused is False


def test_connect_gives_a_home_to_look_at(tmp_path):
    ps.prepare("numbers", rows)
    home = ps.connect()
    assert [view.version.reference for view in home.datasets()] == ["numbers@1"]
    assert home.dataset("numbers").version.name == "numbers"
    assert home.runs() == []
    home.close()
    assert ps.connect(home=str(tmp_path / "elsewhere")).datasets() == []


def test_training_without_torch_names_the_extra_and_starts_nothing(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *a: None if name == "torch" else find(name, *a)
    )
    with pytest.raises(ps.errors.MissingExtra) as caught:
        ps.train(rows, name="x")
    assert "penstock[torch]" in caught.value.fix
    assert not (tmp_path / "home").exists()


def test_a_run_without_a_model_cannot_be_evaluated():
    with pytest.raises(ps.errors.BadInput, match="named by its reference"):
        ps.deploy("digits", None)
