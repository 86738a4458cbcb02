"""The same script on a Ray cluster: real nodes, which come, are cut off, and are taken away."""

import signal

import pytest
from tests.blobs.conftest import Proxy
from tests.ray_nodes import Cluster
from tests.training.engines import nothing_is_left, on_cluster

pytestmark = [pytest.mark.ray, pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(240)]

SLOWLY = ("pause: float = 0.01", "pause: float = 0.2")
ELASTIC = (("workers=int(workers)", "workers=(1, 2)"), ("nn.BatchNorm1d(32)", "nn.Identity()"))


@pytest.fixture
def on(made, cluster):
    """`on(**settings)`: a project whose ranks run on the cluster's nodes."""
    return lambda **settings: on_cluster(made, cluster, **settings)


@pytest.mark.cluster
def test_rays_client_reaches_the_cluster_from_outside(on, cluster, undisturbed):
    cluster.add(cpus=2)
    project = on()
    project.environment["PENSTOCK_ENGINE"] = f"ray://{cluster.host}:{cluster.client_port}"
    out = project.run("run", "2")
    assert project.newest("run").result["weights"] == undisturbed(2), out
    nothing_is_left(project, cluster)


@pytest.mark.cluster
def test_a_cluster_on_this_machine_ends_with_the_run(made, undisturbed, tmp_path):
    project = made(engine="ray")
    project.environment["PENSTOCK_NODE_HOME"] = str(tmp_path / "nodes")
    project.environment.pop("RAY_ADDRESS", None)
    out = project.run("run", "2")
    assert project.newest("run").result["weights"] == undisturbed(2), out
    project.nothing_left()
    assert not list((tmp_path / "nodes").glob("agents/*"))


@pytest.mark.cluster
@pytest.mark.s3
def test_rows_in_postgresql_and_bytes_in_an_object_store(on, cluster, postgres, s3, undisturbed):
    """All that several machines share, and nothing of it on a disk of theirs."""
    cluster.add()
    cluster.add()
    project = on(meta=postgres.fresh(), blobs=s3)
    out = project.run("run", "2")
    run = project.newest("run")
    assert run.state == "finished" and run.result["weights"] == undisturbed(2), out
    assert not (project.home / "meta.db").exists() and not (project.home / "blobs").exists()
    assert project.committed("run") == 80
    nothing_is_left(project, cluster)
    project.close()


def test_a_node_whose_power_is_cut_is_replaced_by_another(on, cluster, undisturbed):
    victim = cluster.add()
    cluster.add()
    project = on()
    held = project.folder / "held"  # until there is another node, however long that takes
    held.touch()
    wait = f"while run.global_step == 12 and open_({str(held)!r}): time.sleep(0.05)"
    project.edit(
        ("time.sleep(config.pause)", f"time.sleep(config.pause)\n        {wait}"),
        ("    import torch\n", "    import torch\n    from os.path import exists as open_\n"),
    )
    script = project.start("run", "2")
    project.until("step 10", lambda: project.committed("run") >= 10)
    cluster.add()
    victim.cut()
    held.unlink()
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    run = project.newest("run")
    assert run.state == "finished" and run.result["weights"] == undisturbed(2)
    assert len(project.events("run", "node.lost")) == 1
    project.nothing_left()


@pytest.mark.cluster
def test_an_elastic_gang_shrinks_at_once_and_grows_when_a_node_comes(on, cluster):
    victim = cluster.add()
    cluster.add()
    project = on()
    project.edit(SLOWLY, *ELASTIC, ("epochs: int = 10", "epochs: int = 20"))
    script = project.start("run", "2")
    project.until("step 10", lambda: project.committed("run") >= 10)
    victim.cut()
    project.until("a smaller gang", lambda: project.events("run", "gang.resized"))
    cluster.add()
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    sizes = [(body["from"], body["to"]) for body in project.events("run", "gang.resized")]
    assert sizes[:2] == [(2, 1), (1, 2)]
    run = project.newest("run")
    assert run.state == "finished" and run.step == 160


@pytest.mark.cluster
def test_when_script_controller_and_keeper_are_gone_the_cluster_is_left_clean(
    on, cluster, undisturbed
):
    """Its agents end by themselves a minute later; the same script goes on where it was."""
    cluster.add(cpus=2)
    project = on()
    project.edit(SLOWLY)
    script = project.start("run", "2")
    project.until("step 10", lambda: project.committed("run") >= 10)
    script.kill()
    project.kill("run", "controller", "keeper")
    script.wait()
    project.until("no actor", lambda: cluster.ask("ray.util.list_named_actors()") == [], 120)
    project.edit((SLOWLY[1], SLOWLY[0]))
    out = project.run("run", "2")
    run = project.newest("run")
    assert run.state == "finished" and run.result["weights"] == undisturbed(2), out
    assert len(project.events("run", "attempt.started")) == 2
    nothing_is_left(project, cluster)


@pytest.mark.cluster
def test_a_node_that_is_drained_saves_first(on, cluster, undisturbed):
    cluster.add()
    cluster.add()
    project = on()
    project.edit(SLOWLY)
    script = project.start("run", "2")
    project.until("step 10", lambda: project.committed("run") >= 10)
    cluster.add()
    name = project.events("run", "gang.started")[0]["where"]["0"]["node"]
    (actor,) = [each for each in cluster.ask("ray.util.list_named_actors()") if name in each]
    cluster.drain(cluster.ask(f"ray.get(ray.get_actor({actor!r}).place.remote())['node']"))
    project.until("a new gang", lambda: len(project.events("run", "gang.started")) == 2)
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    run = project.newest("run")
    assert run.state == "finished" and run.result["weights"] == undisturbed(2)
    first = project.events("run", "attempt.ended")[0]
    assert "is taken away" in first["cause"]
    (resumed,) = project.events("run", "attempt.resumed")
    assert resumed["step"] == first["to_step"]  # nothing is done twice


def test_a_gang_that_can_never_be_is_said_at_once(on, cluster):
    cluster.add()
    project = on()
    out = project.run("run", "4", code=2)
    assert "4 ranks of 1 CPU can never be on this cluster, which has room for 1" in out
    assert "(1 CPU)" in out
    project.nothing_left()


def test_a_node_with_another_penstock_is_refused_by_name(on, cluster, tmp_path):
    """Python and Ray of another version do not even join a cluster: Ray sees to that."""
    about = tmp_path / "elsewhere" / "penstock-0.0.9.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: penstock\nVersion: 0.0.9\n")
    cluster.add(PYTHONPATH=str(about.parent))
    project = on()
    out = project.run("run", "1", code=2)
    assert "penstock is 0.0.9 on node" in out and "Install the same on all nodes" in out, out
    project.nothing_left()


@pytest.mark.cluster
@pytest.mark.s3
def test_a_node_whose_keys_nobody_knows_is_said(on, cluster, moto, bucket):
    """The script's are good: what ranks cannot read is the node's matter."""

    def only_who_is_known(seen):
        known = "AKIDTEST" in seen.headers.get("authorization", "")
        return None if known else (403, "InvalidAccessKeyId")

    proxy = Proxy(moto, only_who_is_known)
    proxy.start()
    cluster.add(AWS_ACCESS_KEY_ID="AKIDWRONG")
    project = on(blobs=f"s3://{bucket}/p?endpoint={proxy.url}&region=us-east-1")
    try:
        out = project.run("run", "1", code=7)
    finally:
        proxy.stop()
    assert "[access-denied]" in out, out
    project.nothing_left()


@pytest.mark.cluster
def test_a_gang_waits_for_room_and_a_stop_ends_that(on, cluster):
    cluster.add(cpus=1)
    first, second = on(), on()
    first.edit(SLOWLY)
    running = first.start("run", "1")
    first.until("step 10", lambda: first.committed("run") >= 10)
    waiting = second.start("run", "1")
    second.until("waiting", lambda: second.newest("run") and second.events("run", "places.waiting"))
    waiting.send_signal(signal.SIGINT)
    out, _ = waiting.communicate(timeout=60)
    assert "waiting for room for 1 ranks of 1 CPU; there is" in out, out
    assert waiting.returncode == 10
    second.nothing_left()
    out, _ = running.communicate(timeout=120)
    assert running.returncode == 0, out


@pytest.mark.cluster
def test_who_has_not_the_token_is_told(on, cluster):
    project = on()
    project.environment["RAY_AUTH_TOKEN"] = "0" * 64
    out = project.run("run", "1", code=7)
    assert "token" in out, out
    project.nothing_left()


@pytest.mark.cluster
def test_an_autoscaler_adds_the_nodes_that_a_run_waits_for(made, undisturbed):
    """Ray's own one, with nodes that are processes of this machine."""
    cluster = Cluster(autoscales=2)
    try:
        project = on_cluster(made, cluster, cluster_autoscales=True)
        out = project.run("run", "2")
        assert project.newest("run").result["weights"] == undisturbed(2), out
        assert "waiting for room for 2 ranks of 1 CPU" in out
        nothing_is_left(project, cluster)
    finally:
        cluster.close()


@pytest.mark.cluster
def test_packages_are_installed_where_ranks_run(on, cluster):
    """By a runtime environment of Ray; this machine does not have them."""
    cluster.add()
    project = on(cluster_packages="einops==0.8.1")
    project.edit(("import torch.nn.functional as F", "import torch.nn.functional as F, einops"))
    out = project.run("run", "1")
    assert project.newest("run").state == "finished", out


@pytest.mark.cluster
def test_labels_resources_and_spreading_say_which_nodes_take_ranks(on, cluster):
    cluster.add(2)
    cluster.add(2, "--labels", "zone=a", "--resources", '{"arm": 2}')
    cluster.add(2, "--labels", "zone=a", "--resources", '{"arm": 2}')
    project = on(cluster_labels="zone=a", cluster_resources="arm=1", cluster_strategy="spread")
    project.run("run", "2")
    (started,) = project.events("run", "gang.started")
    assert len({each["node"] for each in started["where"].values()}) == 2
    project.environment["PENSTOCK_CLUSTER_LABELS"] = "zone=b"
    out = project.run("other", "1", code=2)
    assert "can never be on this cluster" in out and "with zone=b" in out
