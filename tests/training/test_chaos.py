"""Long: every kind of process is killed again and again at random moments of one training.

`make chaos` runs it; PENSTOCK_CHAOS_SEED=N repeats one. The short version is test_kills.py.
"""

import textwrap

import pytest
from tests.training.conftest import PROJECT
from tests.training.storm import Storm

pytestmark = [
    pytest.mark.torch,
    pytest.mark.faults,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]

ROLES = ["rank"] * 3 + ["all ranks", "agent", "image", "sidecar", "controller", "script"]
FAULTS = 12
LONG = textwrap.dedent(PROJECT).replace("epochs: int = 10", "epochs: int = 60")


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_no_storm_of_kills_changes_a_bit_of_the_weights(made, dice, workers):
    """Not only between steps: also while something starts, saves or ends because of a strike."""
    project = made(source=LONG)
    project.run("twin", str(workers))
    storm = Storm(project, dice, workers, lets_go=False)
    while len(storm.struck) < FAULTS and not storm.is_over():
        seen = project.committed("run")
        progress = lambda seen=seen: storm.is_over() or project.committed("run") > seen  # noqa: E731
        project.until("progress", progress, 90)
        storm.wait(0.5)
        storm.strike(dice.choice(ROLES))
    project.until("the end", storm.is_over, 300)
    assert len(storm.struck) > FAULTS // 2, "the run was over too early"
    run = project.newest("run")
    assert (run.state, run.step) == ("finished", 480)
    assert run.result["weights"] == project.newest("twin").result["weights"]
