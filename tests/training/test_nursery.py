"""Runs of one script are forked from one process; without it, or when it dies, they go on."""

import os
import signal
import textwrap
from pathlib import Path

import pytest
from tests.training.conftest import Project

pytestmark = [pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(240)]

SCRIPT = """
    import os
    import signal
    import sys
    import time
    from dataclasses import dataclass

    import penstock as ps

    @dataclass
    class Config:
        steps: int = 5
        pause: float = 0.0

    def fit(run: "ps.Run", config: Config) -> None:
        import torch

        print("CHANGED", os.environ.get("CHANGED"), flush=True)
        model = run.distribute(torch.nn.Linear(2, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run.track(model=model, optimizer=optimizer)
        for _ in run.steps(config.steps):
            run.backward(model(torch.ones(4, 2)).mean())
            run.step(optimizer)
            time.sleep(config.pause)

    def main() -> None:
        from penstock.jobs.nursery import owner

        for word in sys.argv[1:]:
            name, *how = word.split("+")
            if name == "change":
                os.environ["CHANGED"] = "1"
            elif name == "kill":
                os.kill(owner._own.pid, signal.SIGKILL)
            elif name == "stop":
                os.kill(owner._own.pid, signal.SIGSTOP)
            elif name == "begun?":
                print("BEGUN", owner._own is not None)
            elif name == "wait":
                time.sleep(600)
            else:
                config = Config(60, 0.05) if "slow" in how else Config()
                ps.train(
                    fit, config, name=name, workers=1, threads=1, checkpoint_every=5,
                    detach="detach" in how,
                )

    if __name__ == "__main__":
        ps.main(main)
    """

TELLS_IMPORTS = """
    import os
    import sys

    class Told:
        def find_spec(self, name, path=None, target=None):
            if name == "torch._C":  # "torch" is also asked for by who only looks
                with open(os.environ["TOLD"], "a") as told:
                    told.write(f"{os.getpid()}\\n")

    sys.meta_path.insert(0, Told())
    """


@pytest.fixture
def script(tmp_path: Path):
    made = Project(tmp_path / "project", SCRIPT)
    (made.folder / "sitecustomize.py").write_text(textwrap.dedent(TELLS_IMPORTS))
    made.environment |= {"PYTHONPATH": str(made.folder), "TOLD": str(tmp_path / "told")}
    yield made
    made.close()


def imports_of_torch(script: Project) -> int:
    return len(Path(script.environment["TOLD"]).read_text().split())


def parent(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[1])


def states(script: Project, *names: str) -> list[str]:
    return [script.newest(name).state for name in names]


def test_three_runs_of_a_script_import_torch_once(script):
    """Controllers and agents of all, and by them the images, are forked from one process; the next
    time it begins before the script does anything."""
    assert "BEGUN False" in script.run("begun?", "one", "two", "three")
    assert states(script, "one", "two", "three") == ["finished"] * 3
    assert imports_of_torch(script) == 1
    assert "BEGUN True" in script.run("begun?", "four")
    assert imports_of_torch(script) == 2
    script.nothing_left()


@pytest.mark.long
def test_a_nursery_that_was_killed_is_replaced_and_one_whose_surroundings_changed_too(script):
    script.run("one", "kill", "two", "change", "three")
    assert states(script, "one", "two", "three") == ["finished"] * 3
    assert imports_of_torch(script) == 3
    assert "CHANGED 1" in script.log("three", "rank-0")
    assert "CHANGED None" in script.log("two", "rank-0")


@pytest.mark.long
def test_a_nursery_that_was_stopped_is_not_waited_for_long(script):
    script.run("one", "stop", "two")
    assert states(script, "two") == ["finished"]
    assert imports_of_torch(script) == 2


def test_a_detached_run_from_a_nursery_goes_on_when_the_script_is_killed(script):
    """And its image is its agent's own: it dies with it, and the run goes on without both."""
    process = script.start("one", "two+slow+detach", "wait")
    script.until("a checkpoint", lambda: script.committed("two") >= 5)
    assert imports_of_torch(script) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    (agent,), (image,) = script.pids("two", "agent"), script.pids("two", "image")
    assert parent(image) == agent
    script.until("the nursery's end", lambda: not nurseries(script, "two"))
    before = script.committed("two")
    script.until("more steps", lambda: script.committed("two") > before)
    os.kill(image, signal.SIGSTOP)  # a process that cannot see the end of a channel
    os.kill(agent, signal.SIGKILL)
    script.until("the image's end", lambda: not Path(f"/proc/{image}").exists())
    script.until("the end", lambda: states(script, "two") == ["finished"])
    assert len(script.events("two", "agent.died")) == 1
    assert imports_of_torch(script) == 2  # an image of its own: there is no nursery any more
    script.nothing_left()


def nurseries(script: Project, name: str) -> list[str]:
    """Nurseries by command line, without what they forked for a run, which shows the same one."""
    roles = ("controller", "agent", "image", "rank", "sidecar")
    forked = set(script.pids(name, *roles))
    found = [line for line in script.leftovers() if "penstock.jobs.nursery" in line]
    return [line for line in found if int(line.split()[0]) not in forked]


@pytest.mark.long
def test_an_attached_run_from_a_nursery_stops_when_the_script_is_killed(script):
    process = script.start("one", "two+slow")
    script.until("a checkpoint", lambda: script.committed("two") >= 5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    script.until("the clean stop", lambda: states(script, "two") == ["stopped"])
    script.nothing_left()


@pytest.mark.long
def test_an_agent_that_dies_is_followed_by_one_from_the_same_nursery(script):
    process = script.start("one", "two+slow")
    script.until("a checkpoint", lambda: script.committed("two") >= 5)
    script.kill("two", "agent")
    process.communicate(timeout=120)
    assert states(script, "two") == ["finished"]
    assert len(script.events("two", "agent.died")) == 1
    assert imports_of_torch(script) == 1
    script.nothing_left()
