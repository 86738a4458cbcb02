"""Real ranks, one of which sleeps: it is named, with what it is slow in, while the run goes on."""

import pytest
from tests.training.conftest import PROJECT, Project

from penstock.monitoring import Accountant

pytestmark = [pytest.mark.torch, pytest.mark.timeout(180)]

SLEEPS = {
    "compute": PROJECT.replace(
        "            loss = F.cross_entropy(",
        "            time.sleep(0.08 * (run.rank == SLOW))\n            loss = F.cross_entropy(",
        1,
    ),
    "data": PROJECT.replace(
        "        for batch in run.steps(train):",
        """        class Slow:
            def __init__(self, source): self.source = source
            def __len__(self): return len(self.source)
            def state(self): return self.source.state()
            def load_state(self, state): self.source.load_state(state)
            def __iter__(self):
                for batch in self.source:
                    time.sleep(0.08 * (run.rank == SLOW))
                    yield batch

        for batch in run.steps(Slow(train)):""",
        1,
    ),
}


@pytest.fixture(
    params=[(0, "compute"), pytest.param((1, "data"), marks=pytest.mark.long)], ids=lambda p: p[1]
)
def sleeping(request, tmp_path):
    rank, part = request.param
    project = Project(tmp_path / "project", SLEEPS[part].replace("SLOW", str(rank)))
    yield project, rank, part
    project.close()


def test_a_rank_that_sleeps_is_named_with_its_evidence(sleeping):
    project, rank, part = sleeping
    said = project.run("run", "2")
    with project.stores() as stores:
        (slow,) = Accountant(stores, "run").look().stragglers
    assert (slow.rank, slow.part) == (rank, part)
    assert slow.seconds >= 0.08 > slow.others
    assert slow.waited > 0.02  # the other one stands in its collectives instead
    (event,) = project.events("run", "rank.straggling")
    assert (event["rank"], event["part"], event["attempt"]) == (rank, part, 1)
    assert f"rank {rank} is" in said and f"slower than the median, in {part}" in said
