"""The account of real trainings: what ranks tell adds up, also when they die."""

import itertools

import pytest
from tests.training.conftest import PROJECT, STEPS, Project, undisturbed  # noqa: F401

from penstock.monitoring import Accountant

pytestmark = [pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(180)]

# Rank 1 kills itself in steps 26 and 38, each once; every rank prints how far it is.
DIES = (
    PROJECT.replace(
        "            loss = F.cross_entropy(",
        """            print("AT", run.global_step, flush=True)
            for step in (25, 37):
                mark = Path(f"died-{step}")
                if run.rank == 1 and run.global_step == step and not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), 9)
            loss = F.cross_entropy(""",
        1,
    )
    .replace(
        "        for batch in run.steps(train):",
        """        run.flops("count")
        for batch in run.steps(train, tokens=lambda batch: 3 * len(batch["label"])):""",
        1,
    )
    .replace(
        "        run.publish(",
        """        print("AT", run.global_step, flush=True)
        run.evaluate(lambda b: (model(b["point"]).argmax(1) == b["label"]).float(), train)
        run.publish(""",
        1,
    )
)
DIES = DIES.replace(
    "    import sys\n", "    import os\n    import sys\n    from pathlib import Path\n", 1
)


@pytest.fixture
def dying(tmp_path):
    project = Project(tmp_path / "project", DIES, peak_flops=1e9)
    yield project
    project.close()


def again(log: str) -> int:
    """Steps that a rank completed for the second time, by what it printed: at the beginning of a
    step, and after the last one, how many were complete."""
    lines = [int(line.split()[-1]) for line in log.splitlines() if " AT " in f" {line}"]
    done = [b for a, b in itertools.pairwise(lines) if b == a + 1]  # else an attempt began
    return len(done) - len(set(done))


def test_the_account_of_a_run_whose_rank_died_twice_adds_up_to_wall_time(dying):
    dying.run("run", "2")
    run = dying.newest("run")
    with dying.stores() as stores:
        found = Accountant(stores, "run").look()
    ledger, through = found.ledger, found.throughput
    assert through.samples > 0
    assert through.tokens == pytest.approx(3 * through.samples)
    # two a weight and sample forward, two backward, and two more but for the first layer
    assert through.flops == pytest.approx(through.samples * (4 * 6 * 32 + 6 * 32 * 2))
    assert through.mfu == pytest.approx(through.flops / 2e9)
    assert found.state == "finished"
    assert ledger.wall == pytest.approx(run.ended_at - run.created_at, abs=1e-6)
    for rank in ledger.ranks:
        assert sum(rank.seconds.values()) == pytest.approx(ledger.wall, abs=1e-6)
        counted = again(dying.log("run", f"rank-{rank.rank}"))
        assert (rank.recomputed_steps, rank.steps) == (counted, STEPS + counted)
        assert counted >= 5 + 7
        for name in ("start-up", "productive", "data", "recomputed", "recovery"):
            assert rank.seconds[name] > 0, name
        for name in ("checkpoint", "evaluation", "publishing", "comparing"):
            assert rank.seconds[name] > 0, name
        assert rank.seconds["hang"] == 0
    assert ledger.goodput == pytest.approx(
        ledger.seconds["productive"] / (2 * ledger.wall - ledger.seconds["start-up"])
    )


@pytest.mark.long
def test_two_deaths_and_counting_flops_change_no_bit_of_the_weights(dying, undisturbed):  # noqa: F811
    dying.run("run", "2")
    assert dying.newest("run").result["weights"] == undisturbed(2)
