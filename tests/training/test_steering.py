"""A run steered from elsewhere: stopped, resumed, followed, listed; and what cannot be kept."""

import signal
import threading

import pytest

from penstock.jobs import control, logs

pytestmark = [pytest.mark.torch, pytest.mark.timeout(120)]


def edited(project, *pairs):
    path = project.folder / "train.py"
    text = path.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def test_a_detached_run_is_followed_stopped_and_resumed_to_the_same_weights(project, undisturbed):
    edited(
        project,
        ("        time.sleep(", "        print('at', run.global_step)\n        time.sleep("),
    )
    project.run("run", "2", "detach")
    run = project.newest("run")
    with project.stores() as stores:
        lines = []

        def read():
            over = lambda: project.newest("run").state == "finished"  # noqa: E731
            lines.extend(logs.follow(stores.layout, run.id, rank=1, ended=over))

        reader = threading.Thread(target=read)
        reader.start()
        project.until("step 20", lambda: project.committed("run") >= 20)
        roles = [row["role"] for row in control.pids(stores, run.id)]
        assert sorted(set(roles)) == ["agent", "controller", "image", "rank", "sidecar"]
        assert roles[0] == "controller" and roles.count("rank") == 2
        control.stop(stores, run.id)
        project.until("the stop", lambda: project.newest("run").state == "stopped")
        project.nothing_left()
        stopped_at = project.newest("run").step
        assert project.committed("run") == stopped_at
        control.resume(stores, run.id)
        project.until("the end", lambda: project.newest("run").state == "finished")
        reader.join(20)
    assert [line for line in lines if line.startswith("at ")] == [f"at {n}" for n in range(80)]
    assert project.newest("run").result["weights"] == undisturbed(2)


def test_ctrl_c_right_after_the_call_ends_script_and_run(project):
    script = project.start("run", "2")
    project.until("the run", lambda: project.newest("run"))
    project.signal(script.pid, signal.SIGINT)
    out, _ = script.communicate(timeout=60)
    assert script.returncode == 10, out
    assert 'run "run" was stopped at step' in out and "Traceback" not in out
    run = project.newest("run")
    assert run.state == "stopped" and run.step == project.committed("run") < 80


def test_checkpoints_by_the_clock_are_of_one_step_on_all_ranks(project, undisturbed):
    edited(project, ("checkpoint_every=10", 'checkpoint_every="0.1s"'))
    script = project.start("run", "2")
    project.until("a checkpoint", lambda: project.committed("run") >= 10)
    project.kill("run", "rank")
    out, _ = script.communicate(timeout=60)
    assert script.returncode == 0, out
    assert project.newest("run").result["weights"] == undisturbed(2)
    assert len(project.events("run", "checkpoint.committed")) > 1


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("Config(), name", "Config(pause=print), name", "config.pause is a builtin_function"),
        ("Config(), name", "Config(pause=float('nan')), name", "config.pause is nan"),
        ("Config(), name", "Config, name", "is the class Config, not an instance"),
        ("fit, Config(), name", "lambda run: None, None, name", "lambda"),
    ],
)
def test_what_cannot_travel_is_refused_before_anything_starts(project, old, new, words):
    edited(project, (old, new))
    out = project.run("run", "1", code=2)
    assert words in out and "Traceback" not in out
    assert project.newest("run") is None
