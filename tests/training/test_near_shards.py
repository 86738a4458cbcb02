"""Two machines that read the same data from an object store: the second reads from the first.

Machines are agents with folders of their own, reached over the network."""

import json

import pytest
from tests.training.engines import on_hosts

from penstock.base.layout import Layout
from penstock.data.cache import counters_here
from penstock.signals import read_scalars

pytestmark = [
    pytest.mark.torch,
    pytest.mark.faults,
    pytest.mark.s3,
    pytest.mark.timeout(240),
]


@pytest.fixture
def on_two(made, s3):
    return lambda **settings: on_hosts(made, "hosts:2x1", blobs=s3, **settings)


def read_by(project, number):
    """What the cache of a machine read."""
    return counters_here(Layout(project.nodes / "hosts" / str(number)))


def test_a_machine_reads_what_another_has_from_it(on_two, undisturbed):
    project = on_two()
    project.run("one", "1")
    first = read_by(project, 0)
    assert first.fetched > 0 and (first.near, read_by(project, 1).misses) == (0, 0)
    project.run("run", "2")
    second = read_by(project, 1)
    assert second.near > 0 and second.refused == 0
    assert second.near >= 9 * second.fetched
    assert read_by(project, 0).fetched == first.fetched
    run = project.newest("run")
    assert run.state == "finished" and run.result["weights"] == undisturbed(2)
    (kept,) = project.events("run", "signals.kept")
    with project.stores() as stores:
        rows = read_scalars(kept["blobs"], stores.blobs).to_pylist()
    told = [row["value"] for row in rows if row["name"] == "penstock/cache_neighbour_bytes"]
    assert max(told) == second.near
    assert not list(project.nodes.rglob("neighbours.json"))  # they went with the agents
    project.nothing_left()


def test_neighbours_are_known_to_their_user_alone_and_no_log_has_their_tokens(on_two):
    project = on_two()
    project.edit(("pause: float = 0.01", "pause: float = 0.05"))
    project.edit(("for batch in", "import os; print(dict(os.environ))\n    for batch in"))
    script = project.start("run", "2")
    files = lambda: list(project.nodes.glob("agents/*/runtime/neighbours.json"))  # noqa: E731
    told = lambda: len(files()) == 2 and all('"doors": {"' in f.read_text() for f in files())  # noqa: E731
    project.until("both", told)
    tokens = [
        door["token"] for file in files() for door in json.loads(file.read_text())["doors"].values()
    ]
    assert len(tokens) == 2
    for file in files():
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o077 == 0
    script.communicate(timeout=120)
    run = project.newest("run")
    logs = [path.read_text() for path in (project.home / "runs" / run.id / "logs").glob("*")]
    assert logs and any("PENSTOCK_NEIGHBOURS" in text for text in logs)
    with project.stores() as stores, stores.meta.read() as db:
        events = str(db.events(subject=f"run/{run.id}", limit=10_000))
    for token in tokens:
        assert token not in events and not any(token in text for text in logs)


@pytest.mark.cluster
def test_switched_off_everything_comes_from_the_store(on_two):
    project = on_two(cache_neighbours=False)
    project.run("one", "1")
    project.run("run", "2")
    second = read_by(project, 1)
    assert (second.near, second.refused) == (0, 0)
    assert second.fetched == read_by(project, 0).fetched > 0
