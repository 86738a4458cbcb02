"""A study's row and its trials, read back and looked at; nothing is trained here."""

import json
import math
import os
from contextlib import closing

import pytest

from penstock.base.errors import BadInput, LeaseHeld, NotFound, Refused
from penstock.base.process import Identity
from penstock.base.settings import load_settings
from penstock.cli.main import run as command
from penstock.jobs.source import CodeIdentity
from penstock.jobs.stores import open_stores
from penstock.records import Run
from penstock.signals import Curve, Emitter, read_scalars, reduce_scalars
from penstock.training.launch import Wanted
from penstock.training.tuning import reading, setup, space, study

SPACE = {
    "lr": space.uniform(1e-4, 1.0, log=True),
    "width": [32, 64],
    "model.depth": space.integers(1, 4),
}
CONFIG = {"lr": 0.1, "width": 32, "model": {"depth": 2}, "name": "x"}


@pytest.fixture
def stores(tmp_path):
    with open_stores(load_settings(tmp_path, {}, home=tmp_path / "home")) as opened:
        yield opened


def asked(**more):
    given = {
        "metric": "loss", "direction": "minimize", "value": "last", "trials": 3,
        "sampler": "random", "pruner": "none", "warmup": None, "seed": 0,
    }  # fmt: skip
    return setup.checked(SPACE, CONFIG, **{**given, **more})


def wanted(code="abc", config=None):
    spec = {
        "config": {"type": None, "value": config or CONFIG}, "world_size": 1, "workers": 1,
        "seed": 0, "every": "30s", "threads": 1, "parts": {"train.fit": code},
    }  # fmt: skip
    identity = CodeIdentity(code, {"train.fit": code})
    return Wanted("search", spec, identity, "", [], False, False)


def decided(stores, want, found, fresh=False, on_change="continue"):
    with stores.meta.write() as tx:
        return study.decide(tx, want, found, 1, fresh, on_change)


def add_trial(stores, row, number, state="finished", losses=(), **facts):
    """A trial's run, as its controller would leave it."""
    params = {"lr": 0.1 * (number + 1), "width": 32, "model.depth": 1}
    about = {"run": row.id, "name": row.name, "trial": number, "params": params}
    spec = {"study": about, "world_size": 1, "workers": 1, "cwd": ".", **facts.pop("spec", {})}
    run = Run(f"run-{row.id[-4:]}-{number}", f"{row.name}/{number}", "train", state, spec, **facts)
    with stores.meta.write() as tx:
        tx.add_run(run)
        tx.change_run(row.id, step=number + 1)
    with closing(Emitter(stores.layout.signals(run.id), run.id, 0, 1)) as emitter:
        for step, loss in enumerate(losses, 1):
            emitter.scalar(step, "loss", loss)
    return run


def furnished(stores):
    row = decided(stores, wanted(), asked(trials=6)).study
    add_trial(stores, row, 0, losses=[3.0, 2.0])
    add_trial(stores, row, 1, losses=[3.0, 1.0], result={"model": "toy@1"})
    add_trial(stores, row, 2, "stopped", [9.0], spec={"stopping": "pruned: 9 at step 1"})
    add_trial(stores, row, 3, "failed", error={"code": "user-code", "what": "ValueError: no"})
    add_trial(stores, row, 4, losses=[math.nan])
    add_trial(stores, row, 5, "stopped", [5.0])
    return row


def test_trials_are_what_their_rows_and_signals_say(stores):
    row = furnished(stores)
    with stores.meta.read() as db:
        found = reading.trials(stores, db.get_run(row.id))
    states = [each.state for each in found]
    assert states == ["complete", "complete", "pruned", "failed", "failed", "waiting"]
    assert [each.value for each in found[:3]] == [2.0, 1.0, 9.0]
    assert found[2].reason == "9 at step 1"
    assert found[3].reason == "ValueError: no"
    assert found[4].reason == "loss is not a number"
    assert found[1].model == "toy@1"
    assert found[0].curve == [(1, 3.0), (2, 2.0)]


def test_what_is_remembered_of_a_trial_is_not_read_again(stores):
    row = furnished(stores)
    with stores.meta.write() as tx:
        first = reading.rows(tx, tx.get_run(row.id))[0]
        tx.remember(reading.memory_key(first), "trial", {"value": 7.0, "curve": [[1, 7.0]]}, ())
    with stores.meta.read() as db:
        found = reading.trials(stores, db.get_run(row.id))[0]
    assert (found.state, found.value, found.curve) == ("complete", 7.0, [(1, 7.0)])


def test_other_runs_that_take_a_trials_name_are_no_trials(stores):
    row = furnished(stores)
    with stores.meta.write() as tx:
        tx.add_run(Run("run-other", "search/0", "train", "finished", {"world_size": 1}))
        rows = reading.rows(tx, tx.get_run(row.id))
    assert len(rows) == 6
    assert rows[0].id != "run-other"


def test_a_curve_is_what_the_metrics_of_a_run_say(stores, tmp_path):
    folder = tmp_path / "signals"
    for generation, rank, steps in ((1, 0, 6), (1, 1, 6), (2, 0, 9), (2, 1, 8)):
        with closing(Emitter(folder, "run-x", rank, generation)) as emitter:
            for step in range(4 * generation - 3, steps):
                emitter.scalar(step, "loss", 10 * generation + rank + step)
                emitter.scalar(step, "other", 0.0)
    table = reduce_scalars(read_scalars(folder)).to_pylist()
    expected = [(row["step"], row["value"]) for row in table if row["name"] == "loss"]
    curve = Curve(folder, "loss", 2)
    assert curve.look() == expected[:-1], "one rank is ahead"
    assert curve.look(final=True) == expected
    assert curve.names == {"loss", "other"}


def test_the_same_call_goes_on_returns_or_begins_anew(stores):
    row, _, _, _ = decided(stores, wanted(), asked())
    assert decided(stores, wanted(), asked()).study.id == row.id
    add_trial(stores, row, 0, "failed")
    again = decided(stores, wanted("other"), asked(sampler="qmc"))
    assert again.study.id == row.id
    assert again.changed == ["sampler: random -> qmc", "train.fit changed"]
    with stores.meta.read() as db:
        assert db.newest_run("search/0").state == "pending", "with other code it is tried again"
    with pytest.raises(Refused, match="unfinished and changed"):
        decided(stores, wanted("abc"), asked(), on_change="refuse")
    assert decided(stores, wanted("abc"), asked(), on_change="fork").study.id != row.id
    other = decided(stores, wanted("abc"), asked(direction="maximize"))
    assert other.study.id != row.id
    assert other.changed == ["direction: minimize -> maximize"]


def test_a_complete_study_is_returned_until_something_changes(stores):
    row = decided(stores, wanted(), asked(trials=1)).study
    add_trial(stores, row, 0, losses=[1.0])
    with stores.meta.write() as tx:
        study.end(tx, row, "finished", {}, None)
    assert decided(stores, wanted(), asked(trials=1)).reused
    assert decided(stores, wanted(), asked(trials=1, pruner="median")).reused
    more = decided(stores, wanted(), asked(trials=2))
    assert (more.study.id, more.reused) == (row.id, False)
    with stores.meta.write() as tx:
        study.end(tx, row, "finished", {}, None)
    changed = decided(stores, wanted("other"), asked(trials=1))
    assert (changed.study.id == row.id, changed.reused) == (False, False)


def test_a_study_that_goes_on_elsewhere_is_not_touched(stores):
    row = decided(stores, wanted(), asked()).study
    with stores.meta.write() as tx:
        parent = Identity.of(os.getppid())
        tx.take_lease(f"run/{row.id}", str(parent), 60.0)
    with pytest.raises(LeaseHeld, match="going on already"):
        decided(stores, wanted(), asked())


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"direction": "min"}, 'no direction "min"'),
        ({"sampler": "tpa"}, 'no sampler "tpa"'),
        ({"pruner": "medians"}, 'no pruner "medians"'),
        ({"value": "first"}, 'no value "first"'),
        ({"trials": None}, "how many trials is not said"),
        ({"trials": 0}, "tries nothing"),
        ({"warmup": 0}, "no number of steps"),
        ({"metric": ""}, "is good when it is large"),
        ({"direction": None}, "is good when it is large"),
        ({"metric": None}, "the direction needs one"),
        ({"metric": None, "direction": None, "sampler": "tpe"}, "tpe needs one"),
        ({"sampler": "grid"}, "a grid has no points along lr"),
    ],
)
def test_what_cannot_be_searched_is_one_clear_error(more, says):
    with pytest.raises(BadInput, match=says):
        asked(**more)


@pytest.mark.parametrize(
    ("dimensions", "says"),
    [
        ({}, "the space is empty"),
        ({"widht": [1, 2]}, 'the config has no "widht"'),
        ({"model.dept": [1, 2]}, 'the config has no "model.dept"'),
        ({"width": space.uniform(0.5, 2)}, "does not fit"),
        ({"width": 3}, "what width may be is given as 3"),
        ({"width": [object()]}, "cannot be kept"),
    ],
)
def test_a_space_is_checked_against_the_config(dimensions, says):
    with pytest.raises(BadInput, match=says):
        setup.checked(
            dimensions, CONFIG, metric="loss", direction="minimize", value="last", trials=1,
            sampler="random", pruner="none", warmup=None, seed=0,
        )  # fmt: skip


def test_a_trials_values_go_into_nested_places_and_leave_the_config_alone():
    params = {"lr": 0.5, "width": 64, "model.depth": 4}
    found = setup.with_params(CONFIG, params)
    assert found == {"lr": 0.5, "width": 64, "model": {"depth": 4}, "name": "x"}
    assert CONFIG["model"] == {"depth": 2}


def test_without_a_metric_a_trial_that_finished_is_complete(stores):
    row = decided(stores, wanted(), asked(metric=None, direction=None)).study
    add_trial(stores, row, 0)
    with stores.meta.read() as db:
        [found] = reading.trials(stores, db.get_run(row.id))
    assert (found.state, found.value) == ("complete", None)


def test_an_unknown_study_names_those_there_are(stores):
    with stores.meta.read() as db, pytest.raises(NotFound, match='no study "search"'):
        reading.find(db, "search")
    furnished(stores)
    with stores.meta.read() as db, pytest.raises(NotFound) as found:
        reading.find(db, "serach")
    assert "search" in found.value.fix


def test_the_command_answers_in_json_and_draws(stores, tmp_path, monkeypatch, capsys):
    furnished(stores)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    assert command(["runs", "study", "search", "--plot", "out.svg", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["best"] == "search/1"
    assert [each["value"] for each in found["trials"]] == [2.0, 1.0, 9.0, None, None, 5.0]
    drawn = (tmp_path / "out.svg").read_text()
    assert drawn.startswith("<svg")
    assert drawn.count("<circle") == 3 * 4, "history and three parameters, three finite trials"
    assert command(["runs", "study", "search", "--plot", "out.html"]) == 0
    told = capsys.readouterr().out
    assert "search/1" in told
    assert "9 at step 1" in told
    page = (tmp_path / "out.html").read_text()
    assert page.count("<tr>") == 7
    assert "http" not in page.replace("http://www.w3.org/2000/svg", ""), "it needs nothing else"
    assert command(["runs", "study", "search", "--plot", "out.png"]) == 2
