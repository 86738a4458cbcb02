"""A whole search: its trials are runs, and whatever is killed, the same call goes on."""

import json
import signal
import subprocess
import sys

import pytest

from penstock.jobs import control
from penstock.training.tuning import reading, sampling
from penstock.training.tuning.space import uniform

pytestmark = [pytest.mark.torch, pytest.mark.timeout(180)]

SPACE = {"lr": uniform(0.01, 1.0)}


def study_of(project):
    with project.stores() as stores, stores.meta.read() as db:
        return db.newest_run("search", "tune")


def trials_of(project):
    with project.stores() as stores:
        return reading.trials(stores, study_of(project))


def runs_of(project):
    """Name -> ids of all training runs."""
    found = {}
    with project.stores() as stores, stores.meta.read() as db:
        for run in db.runs(limit=1000):
            if run.work == "train":
                found.setdefault(run.name, []).append(run.id)
    return found


def under_way(project):
    """Numbers of trials that have made a checkpoint and go on."""
    with project.stores() as stores:
        study = study_of(project)
        if study is None:
            return []
        with stores.meta.read() as db:
            return [
                run.spec["study"]["trial"]
                for run in reading.rows(db, study)
                if db.checkpoints(run.id) and run.state == "running"
            ]


def proposed(count, seed=0):
    """What a random search tries, one after the other."""
    return [
        sampling.propose("random", SPACE, seed, number, [], "minimize")["lr"]
        for number in range(count)
    ]


def holds(project, count):
    """Each trial once, with what an undisturbed search tries; all complete."""
    found = trials_of(project)
    assert [each.number for each in found] == list(range(count))
    assert [each.params["lr"] for each in found] == proposed(count)
    assert [each.state for each in found] == ["complete"] * count
    for each in found:
        assert each.value == pytest.approx(abs(each.params["lr"] - 0.3) + 1 / 20, abs=1e-6)
        assert each.step == 20
    runs = runs_of(project)
    assert sorted(runs) == [f"search/{number}" for number in range(count)]
    assert all(len(ids) == 1 for ids in runs.values())


def test_a_search_goes_on_after_sigkill_and_then_is_only_returned(searching):
    searching.edit(("pause: float = 0.0", "pause: float = 0.1"))
    script = searching.start("trials=2", "parallel=2")
    searching.until("both trials under way", lambda: len(under_way(searching)) == 2)
    script.send_signal(signal.SIGKILL)
    script.communicate()
    out = searching.run("trials=2", "parallel=2")
    assert "it is unfinished (interrupted with 2 of 2 trials begun)" in out
    holds(searching, 2)
    best = min(trials_of(searching), key=lambda each: each.value)
    assert f"BEST {best.name} " in out
    with searching.stores() as stores, stores.meta.read() as db:
        for each in trials_of(searching):
            assert db.attempts(each.run)[-1].from_step >= 5, "it began anew"
    again = searching.run("trials=2", "parallel=2")
    assert "reused study search, because all 2 trials are done" in again
    assert f"BEST {best.name} " in again
    holds(searching, 2)
    searching.nothing_left()


@pytest.mark.long
def test_killed_at_many_moments_no_trial_is_lost_or_run_twice(searching):
    for moment in range(3):
        script = searching.start("trials=5", "parallel=2")
        searching.until(
            "some trials",
            lambda at=moment: len(runs_of(searching)) > at,
        )
        script.send_signal(signal.SIGKILL)
        script.communicate()
    searching.run("trials=5", "parallel=2")
    holds(searching, 5)


@pytest.mark.long
def test_ctrl_c_stops_the_trials_cleanly_and_the_same_call_goes_on(searching):
    searching.edit(("pause: float = 0.0", "pause: float = 0.1"))
    script = searching.start("trials=3", "parallel=2")
    searching.until("two trials under way", lambda: len(under_way(searching)) == 2)
    script.send_signal(signal.SIGINT)
    out, _ = script.communicate(timeout=60)
    assert script.returncode == 10, out
    assert "was stopped with 0 of 3 trials done" in out
    searching.nothing_left()
    assert study_of(searching).state == "stopped"
    assert {each.state for each in trials_of(searching)} == {"waiting"}
    searching.run("trials=3", "parallel=2")
    holds(searching, 3)


@pytest.mark.long
def test_a_trial_recovers_like_any_run_also_without_controller_and_agent(searching):
    searching.edit(("pause: float = 0.0", "pause: float = 0.1"))
    script = searching.start("trials=2", "parallel=2")
    searching.until("two trials under way", lambda: len(under_way(searching)) == 2)
    searching.kill("search/0", "rank")
    searching.kill("search/1", "controller", "agent")
    out, _ = script.communicate(timeout=90)
    assert script.returncode == 0, out
    assert "trial 1 was interrupted, and goes on" in out
    holds(searching, 2)


@pytest.mark.long
def test_more_trials_go_on_with_the_study_and_another_space_is_a_new_one(searching):
    searching.run("trials=2", "parallel=2")
    first = study_of(searching)
    out = searching.run("trials=3", "parallel=2")
    assert "it has 2 of 3 trials" in out
    assert study_of(searching).id == first.id
    holds(searching, 3)
    searching.edit(("uniform(0.01, 1.0)", "uniform(0.01, 0.5)"))
    out = searching.run("trials=2", "parallel=2")
    assert "changed: space.lr.high: 1.0 -> 0.5" in out
    assert study_of(searching).id != first.id
    assert all(each.params["lr"] <= 0.5 for each in trials_of(searching))
    assert sorted(map(len, runs_of(searching).values())) == [1, 2, 2]


@pytest.mark.long
def test_trials_that_others_beat_are_stopped_early_and_say_why(searching):
    searching.edit(("pause: float = 0.0", "pause: float = 0.2"), ('"random"', '"grid"'))
    searching.edit(("ps.space.uniform(0.01, 1.0)", "[0.3, 0.9]"))
    searching.edit(('metric="loss"', 'pruner="halving", warmup=5, metric="loss"'))
    out = searching.run()
    first, second = trials_of(searching)
    assert (first.state, second.state) == ("complete", "pruned")
    assert "at step 5, rung 5 of 2 trials" in second.reason
    assert second.step < 20
    assert "trial 1: pruned, " in out
    run = searching.newest("search/1")
    assert run.state == "stopped"
    with searching.stores() as stores, stores.meta.read() as db:
        assert db.attempts(run.id)[-1].cause.startswith("pruned: 0.8 at step 5")
    assert "reused study" in searching.run()


@pytest.mark.long
def test_a_trial_that_fails_is_counted_and_tried_again_when_the_code_is_mended(searching):
    searching.edit(("ps.space.uniform(0.01, 1.0)", "[0.3, 0.9]"), ('"random"', '"grid"'))
    searching.edit(("loss = model", "assert config.lr < 0.5, 'too far'\n        loss = model"))
    out = searching.run("parallel=2")
    assert [each.state for each in trials_of(searching)] == ["complete", "failed"]
    assert "too far" in trials_of(searching)[1].reason
    assert "trial 1: failed: " in out
    assert "BEST search/0" in out
    searching.edit(("config.lr < 0.5", "config.lr > 0.5"))
    out = searching.run("fresh=yes", "parallel=2")
    assert [each.state for each in trials_of(searching)] == ["failed", "complete"]
    searching.edit(("config.lr > 0.5", "config.lr < 0.1"))
    out = searching.run("fresh=yes", "parallel=2", code=9)
    assert "2 of 2 trials of study" in out
    assert study_of(searching).state == "failed"
    searching.edit(("config.lr < 0.1", "config.lr < 1.0"))
    searching.run("parallel=2")
    assert [each.state for each in trials_of(searching)] == ["complete", "complete"]
    assert all(len(ids) == 3 for ids in runs_of(searching).values()), "a trial was run twice"


@pytest.mark.long
def test_a_metric_that_is_never_logged_costs_one_trial(searching):
    searching.edit(('metric="loss"', 'metric="lss"'))
    out = searching.run(code=2)
    assert 'finished without logging "lss"' in out
    assert 'Did you mean "loss"?' in out
    assert len(trials_of(searching)) == 1
    searching.nothing_left()


@pytest.mark.long
def test_a_second_script_is_refused_and_a_stop_from_elsewhere_is_heard(searching):
    searching.edit(("pause: float = 0.0", "pause: float = 0.1"))
    script = searching.start()
    searching.until("a trial under way", lambda: under_way(searching))
    assert "is going on already" in searching.run(code=4)
    with searching.stores() as stores:
        control.stop(stores, study_of(searching).id)
    out, _ = script.communicate(timeout=60)
    assert script.returncode == 10, out
    searching.nothing_left()
    searching.run()
    holds(searching, 3)


@pytest.mark.long
def test_commands_look_at_a_study_and_at_its_trials(searching):
    searching.run("trials=2", "parallel=2")

    def asked(*words):
        done = subprocess.run(
            [sys.executable, "-m", "penstock.cli.main", *words, "--json"],
            cwd=searching.folder,
            env=searching.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    found = asked("runs", "study", "search", "--plot", "search.svg")
    assert [each["state"] for each in found["trials"]] == ["complete", "complete"]
    best = min(found["trials"], key=lambda each: each["value"])
    assert found["best"] == best["name"]
    assert (searching.folder / "search.svg").read_text().startswith("<svg")
    [[step, value]] = asked("runs", "metrics", best["name"], "loss")["loss"][-1:]
    assert (step, value) == (20, pytest.approx(best["value"]))
    assert asked("runs", "show", best["name"])["run"]["state"] == "finished"


@pytest.mark.long
def test_a_sweep_from_the_command_line_goes_on_after_sigkill(searching):
    """And each trial's ranks are forked from an image that has what is preloaded."""
    searching.edit(("ps.main(main)", "ps.main(fit, Config)"))
    first = "    import torch\n"
    searching.edit((first, f"    assert 'colorsys' in sys.modules\n{first}"))
    line = ("--sweep", "lr=0.1,0.2", "model.width=4,8", "--parallel", "2", "--name", "search")
    line += ("--preload", "colorsys")
    script = searching.start(*line)
    searching.until("three runs", lambda: len(runs_of(searching)) == 3)
    script.send_signal(signal.SIGKILL)
    script.communicate()
    searching.run(*line)
    found = trials_of(searching)
    values = [(each.params["lr"], each.params["model.width"]) for each in found]
    assert values == [(0.1, 4), (0.1, 8), (0.2, 4), (0.2, 8)]
    assert {each.state for each in found} == {"complete"}
    assert all(len(ids) == 1 for ids in runs_of(searching).values())
    assert "reused study search, because all 4 trials are done" in searching.run(*line)
