"""Scripts that want the same GPU. It is one that the setting `devices` names: ranks compute on the
CPU, and all else is as with a real one."""

import signal

import pytest

from penstock.home import runs
from penstock.jobs import control

pytestmark = [pytest.mark.torch, pytest.mark.timeout(180)]


HOLD = """
        while run.name == "one" and run.global_step == 15 and not os.path.exists("go"):
            time.sleep(0.02)
"""


def holding(made):
    """A project with one GPU, whose run "one" keeps it at step 15 until there is a file "go"."""
    project = made(devices="gpu:GPU-a")
    project.edit(
        ("        time.sleep(config.pause)\n", HOLD),
        ("    for batch", "    print(os.environ.get('CUDA_VISIBLE_DEVICES'))\n    for batch"),
        ("import sys\n", "import os\nimport sys\n"),
    )
    return project


def go(project):
    (project.folder / "go").touch()


def queue(project):
    with project.stores() as stores:
        return {view.name: view for view in runs.queue(stores)}


def granted(project, name):
    return [event["devices"] for event in project.events(name, "devices.granted")]


def begin(project, name, *rest):
    """A script whose run is in the queue or has its GPU."""
    script = project.start(name, "1", *rest)
    project.until(f"{name} in the queue", lambda: name in queue(project))
    return script


def ended(script):
    out, _ = script.communicate(timeout=90)
    return script.returncode, out


@pytest.mark.long
def test_the_next_in_the_queue_takes_over_from_a_killed_run_and_nothing_stays_claimed(made):
    project = holding(made)
    one = begin(project, "one")
    project.until("step 10 of one", lambda: project.committed("one") >= 10)
    two, three, four = (begin(project, name) for name in ("two", "three", "four"))
    found = queue(project)
    assert list(found) == ["one", "two", "three", "four"]
    assert found["one"].devices == ["gpu/GPU-a"] and found["one"].state == "holds"
    assert found["three"].waits_for == ["run one holds gpu/GPU-a", "run two waits for 1 GPU"]
    assert project.newest("two").state == "pending"
    assert project.pids("two", "agent", "image", "rank") == []  # who waits takes no memory

    three.send_signal(signal.SIGINT)
    code, out = ended(three)
    assert code == 10 and "waiting for 1 GPU: run one holds gpu/GPU-a; run two" in out, out
    with project.stores() as stores:
        control.stop(stores, "four")
    code, out = ended(four)
    assert code == 10 and "stopped at step 0" in out, out
    assert project.newest("three").state == project.newest("four").state == "stopped"
    assert list(queue(project)) == ["one", "two"]

    one.kill()
    project.kill("one", "controller", "agent", "image", "rank", "sidecar")
    code, out = ended(two)
    assert code == 0 and "got gpu/GPU-a after" in out, out
    assert granted(project, "one") == granted(project, "two") == [["gpu/GPU-a"]]
    assert granted(project, "three") == granted(project, "four") == []
    assert project.log("two", "rank-0").split()[0] == "GPU-a"
    assert queue(project) == {}
    project.nothing_left()


@pytest.mark.long
def test_a_controller_that_is_killed_keeps_the_gpu_of_its_ranks(made):
    project = holding(made)
    one = begin(project, "one")
    project.until("step 10 of one", lambda: project.committed("one") >= 10)
    two = begin(project, "two")
    for _ in range(2):
        (old,) = project.kill("one", "controller")
        project.until(
            "another", lambda old=old: [*project.pids("one", "controller"), old][0] != old
        )
    assert queue(project)["one"].devices == ["gpu/GPU-a"]
    assert queue(project)["two"].devices == [] and project.pids("two", "rank") == []
    go(project)
    code, out = ended(one)
    assert code == 0, out
    code, out = ended(two)
    assert code == 0 and queue(project) == {}, out


def test_more_workers_than_gpus_is_said_at_once(made):
    project = made(devices="gpu:GPU-a")
    project.edit(("seed=3,", 'seed=3, device="cuda",'))
    out = project.run("run", "2", code=2)
    assert 'device="cuda" for 2 ranks needs 2 GPUs, and there are 1 (GPU-a)' in out
    assert project.newest("run") is None


def test_too_few_gpus_for_auto_are_said_once(made):
    project = made(devices="gpu:GPU-a")
    project.edit(("epochs=config.epochs", "epochs=1"))
    line = "1 GPU (GPU-a) for 2 ranks: they compute on the CPU"
    assert project.run("run", "2").count(line) == 1
    assert project.events("run", "devices.short") == [{"ranks": 2, "gpus": ["GPU-a"]}]


@pytest.mark.long
def test_a_run_inside_its_script_waits_too(made):
    project = holding(made)
    one = begin(project, "one")
    inside = project.start("inside", "0")
    project.until("the queue", lambda: "inside" in queue(project))
    inside.send_signal(signal.SIGINT)
    code, out = ended(inside)
    assert code == 10 and "waiting for 1 GPU: run one holds gpu/GPU-a" in out, out
    assert list(queue(project)) == ["one"]
    go(project)
    assert ended(one)[0] == 0
    project.run("inside", "0")
    assert granted(project, "inside") == [["gpu/GPU-a"]] and queue(project) == {}
