"""A preparation whose workers are on several machines, here played by agents of this one."""

import pytest

from penstock.base.errors import BadInput
from penstock.data.preparation import prepare
from penstock.jobs.stores import open_stores

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


@pytest.fixture
def hosts(project, tmp_path, monkeypatch):
    """Stores of a second home, whose work runs on two hosts."""
    monkeypatch.setenv("PENSTOCK_NODE_HOME", str(tmp_path / "nodes"))
    changed = {"engine": "hosts:2", "home": tmp_path / "second"}
    with open_stores(project.stores.settings.model_copy(update=changed)) as stores:
        yield stores


def test_several_machines_make_the_version_that_one_makes(project, hosts, tmp_path):
    project.files(20)
    here = project.prepare(map=project.steps.double, workers=0, unit_bytes=0)
    there = prepare(
        hosts, "data", str(project.raw), map=project.steps.double, key="id", workers=2,
        unit_bytes=0,
    )  # fmt: skip
    assert there.version.digest == here.version.digest
    with hosts.meta.read() as db:
        run = db.newest_run("data", "prepare")
        pids = [e.body for e in db.events(subject=f"run/{run.id}") if e.kind == "gang.started"]
    assert run.state == "finished" and pids
    assert not list((tmp_path / "nodes" / "agents").glob("*"))


@pytest.mark.ray
@pytest.mark.root
def test_files_that_nodes_do_not_see_are_said_to_be_on_this_machine(
    project, cluster, tmp_path, monkeypatch
):
    project.files(20)
    cluster.add(cpus=2, hidden=project.raw)
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    blobs = f"file://{tmp_path}/shared"
    changed = {"engine": f"ray:{cluster.address}", "home": tmp_path / "second", "blobs": blobs}
    with open_stores(project.stores.settings.model_copy(update=changed)) as stores:
        with pytest.raises(BadInput, match="a node of the cluster does not see it") as found:
            prepare(stores, "data", str(project.raw), key="id", workers=2, unit_bytes=0)
        with stores.meta.read() as db:
            assert not db.versions("dataset", "data")
    assert "PENSTOCK_ENGINE=processes" in found.value.fix
