"""The same script on hosts that fail as machines do: their power is cut, the network between them
is cut while both sides go on, they stand still and wake up, and what they all need goes away.

A host's network, processes, disk and memory are its own; only the controller's machine is this one.
"""

import signal
import time
from pathlib import Path

import pytest
from tests.blobs.conftest import Proxy
from tests.postgres import Server
from tests.ray_hosts import RayHosts
from tests.redis_server import Redis

pytestmark = [
    pytest.mark.ray,
    pytest.mark.torch,
    pytest.mark.faults,
    pytest.mark.s3,
    pytest.mark.root,
    pytest.mark.timeout(500),
]

# Each rank notes its steps on its host's disk, where a file `calm` makes it hurry.
NOTING = (
    (
        "for batch in run.steps(train):",
        "notes = open(f'/mnt/steps-{os.getpid()}', 'a', buffering=1)\n"
        "    for batch in run.steps(train):",
    ),
    (
        "time.sleep(config.pause)",
        "notes.write(f'{run.global_step + 1}\\n')\n"
        "        time.sleep(0 if os.path.exists('/mnt/calm') else config.pause)",
    ),
    ("import sys\n", "import os\nimport sys\n"),
    ("pause: float = 0.01", "pause: float = 0.2"),
)
# Of any number of ranks, also of one that changes, the weights are the same bits.
ELASTIC = (
    ("torch.nn.BatchNorm1d(32), ", ""),
    ("workers=int(workers)", "workers=(1, 2)"),
    ("run.steps(train)", "run.steps(train, micro_batches=4, reduction='ordered')"),
    ("epochs: int = 10", "epochs: int = 40"),
)


@pytest.fixture
def door(moto):
    """`door(ray_hosts)`: the object store as hosts reach it, which may refuse."""
    opened = []

    def run(ray_hosts):
        proxy = Proxy(moto, host=ray_hosts.hosts.services)
        proxy.start()
        opened.append(proxy)
        return proxy

    yield run
    for proxy in opened:
        proxy.stop()


@pytest.fixture
def on(made, door, new_bucket):
    """`on(ray_hosts, **settings)`: a project whose ranks run on those hosts."""

    def run(ray_hosts, **settings):
        proxy = door(ray_hosts)
        url = f"s3://{new_bucket()}/p?endpoint={proxy.url}&region=us-east-1&deadline=15&timeout=5"
        project = made(engine=ray_hosts.engine, blobs=url, **settings)
        project.environment |= ray_hosts.environment
        project.edit(*NOTING)
        project.proxy = proxy
        return project

    return run


@pytest.fixture
def elastic(on, made):
    """As `on`, of one rank or two; `.twin` has the weights of two that nobody touched."""

    def run(ray_hosts, **settings):
        alone = made()
        alone.edit(*ELASTIC, ("pause: float = 0.01", "pause: float = 0.0"))
        alone.run("run", "2")
        project = on(ray_hosts, **settings)
        project.edit(*ELASTIC)
        project.twin = alone.newest("run").result["weights"]
        return project

    return run


def noted(host):
    """The newest step that a rank has noted there; 0: none."""
    lines = [file.read_text().split() for file in host.disk.glob("steps-*")]
    return max((int(each[-1]) for each in lines if each), default=0)


def hurry(*hosts):
    for host in hosts:
        (host.disk / "calm").touch()


def where(project, ray_hosts):
    """The hosts of the newest gang, by rank."""
    ranks = project.events("run", "gang.started")[-1]["where"]
    by_address = {host.address: host for host in ray_hosts.nodes}
    return [by_address[ranks[rank]["host"]] for rank in sorted(ranks, key=int)]


def finished(project, script):
    out, _ = script.communicate(timeout=150)
    assert script.returncode == 0, out
    run = project.newest("run")
    assert run.state == "finished"
    return run


def generations(project):
    """[(step, generation)] of the run's checkpoints, in the order of their commits."""
    with project.stores() as stores, stores.meta.read() as db:
        rows = db.checkpoints(project.newest("run").id)
    return [(row.step, row.generation) for row in sorted(rows, key=lambda row: row.created_at)]


@pytest.mark.long
def test_the_two_sides_of_a_cut_go_on_and_one_commits(on, ray_hosts, undisturbed):
    """Behind it are both ranks of the gang, and the object store. They come to their end, and
    nothing of it is anybody's: checkpoints, scalars and the model are those of the other side."""
    one, other = ray_hosts.add(cpus=2), ray_hosts.add(cpus=2)
    project = on(ray_hosts)
    script = project.start("run", "2")
    project.until("step 10", lambda: project.committed("run") >= 10, 150)
    behind, front = (one, other) if where(project, ray_hosts)[0] is one else (other, one)
    behind.cut(ray_hosts.hosts.address, ray_hosts.head.address)
    hurry(behind)
    project.until("the end of the steps behind the cut", lambda: noted(behind) == 80)
    project.until("another gang", lambda: len(project.events("run", "gang.started")) == 2, 120)
    assert where(project, ray_hosts) == [front, front]
    before = project.committed("run")
    assert before < 80 and behind.pids("rank-")
    project.until("a checkpoint", lambda: project.committed("run") > before)
    behind.heal()
    project.until("the end of the old gang", lambda: not behind.pids("rank-"), 90)
    ray_hosts.restart_what_ended()
    hurry(front)
    run = finished(project, script)
    assert run.result["weights"] == undisturbed(2)
    new = project.events("run", "attempt.started")[1]["generation"]
    assert {generation for step, generation in generations(project) if step > before} == {new}
    assert len(project.events("run", "model.published")) == 1
    assert len(project.events("run", "node.lost")) == 1
    project.nothing_left()
    ray_hosts.nothing_is_left()


@pytest.mark.cluster
def test_a_host_whose_power_is_cut_is_replaced_by_another(on, ray_hosts, undisturbed):
    for _ in range(3):
        ray_hosts.add()
    project = on(ray_hosts)
    script = project.start("run", "2")
    project.until("step 10", lambda: project.committed("run") >= 10, 150)
    victim = where(project, ray_hosts)[1]
    victim.power_cut()
    project.until("another gang", lambda: len(project.events("run", "gang.started")) == 2, 120)
    assert victim not in where(project, ray_hosts)
    assert len(project.events("run", "node.lost")) == 1 and not project.events("run", "rank.died")
    ray_hosts.start_node(victim)  # with what was on its disk
    hurry(*ray_hosts.nodes)
    assert finished(project, script).result["weights"] == undisturbed(2)
    project.nothing_left()
    ray_hosts.nothing_is_left()


@pytest.mark.cluster
def test_a_gang_that_may_not_shrink_waits_for_its_host(on, ray_hosts, undisturbed):
    """Also when Ray knows that so many can never be: it was there, and comes back."""
    for _ in range(2):
        ray_hosts.add()
    project = on(ray_hosts)
    script = project.start("run", "2")
    project.until("step 10", lambda: project.committed("run") >= 10, 150)
    victim = where(project, ray_hosts)[0]
    victim.power_cut()
    ray_hosts.until("Ray to know", lambda: not ray_hosts.is_there(victim))
    time.sleep(5)
    assert script.poll() is None
    ray_hosts.start_node(victim)
    hurry(*ray_hosts.nodes)
    assert finished(project, script).result["weights"] == undisturbed(2)
    ray_hosts.nothing_is_left()


@pytest.mark.cluster
def test_an_elastic_gang_goes_on_without_the_host_and_has_it_again(elastic, ray_hosts):
    for _ in range(2):
        ray_hosts.add()
    project = elastic(ray_hosts)
    script = project.start("run", "2")
    project.until("step 10", lambda: project.committed("run") >= 10, 150)
    victim = where(project, ray_hosts)[0]
    victim.power_cut()
    project.until("a smaller gang", lambda: project.events("run", "gang.resized"), 120)
    ray_hosts.start_node(victim)
    project.until("growth", lambda: len(project.events("run", "gang.resized")) >= 2, 120)
    hurry(*ray_hosts.nodes)
    run = finished(project, script)
    sizes = [(body["from"], body["to"]) for body in project.events("run", "gang.resized")]
    assert sizes[:2] == [(2, 1), (1, 2)]
    assert run.result["weights"] == project.twin and run.step == 320
    ray_hosts.nothing_is_left()


@pytest.mark.cluster
def test_a_cut_of_an_elastic_gang_costs_it_what_is_behind(elastic, ray_hosts):
    """Behind it is one rank of two, off everything: it can do nothing, and is gone when the cut is
    healed."""
    for _ in range(2):
        ray_hosts.add()
    project = elastic(ray_hosts)
    script = project.start("run", "2")
    project.until("step 10", lambda: project.committed("run") >= 10, 150)
    victim = where(project, ray_hosts)[1]
    victim.cut()
    project.until("a smaller gang", lambda: project.events("run", "gang.resized"), 120)
    before = project.committed("run")
    project.until("a checkpoint", lambda: project.committed("run") > before)
    victim.heal()
    project.until("growth", lambda: len(project.events("run", "gang.resized")) >= 2, 120)
    hurry(*ray_hosts.nodes)
    assert finished(project, script).result["weights"] == project.twin
    ray_hosts.restart_what_ended()
    ray_hosts.nothing_is_left()


@pytest.mark.cluster
def test_a_cut_that_is_healed_at_once_costs_no_step(on, ray_hosts, undisturbed):
    """Packets that were lost come late: another connection is faster than the old one."""
    for _ in range(2):
        ray_hosts.add()
    project = on(ray_hosts)
    script = project.start("run", "2")
    project.until("step 10", lambda: project.committed("run") >= 10, 150)
    for host in ray_hosts.nodes:
        host.cut(ray_hosts.hosts.address)
    time.sleep(1.4)
    for host in ray_hosts.nodes:
        host.heal()
    project.until("step 30", lambda: project.committed("run") >= 30)
    hurry(*ray_hosts.nodes)
    assert finished(project, script).result["weights"] == undisturbed(2)
    assert len(project.events("run", "attempt.started")) == 1
    assert not project.events("run", "node.lost")
    ray_hosts.nothing_is_left()


@pytest.mark.cluster
def test_a_host_that_stood_still_for_longer_than_the_lease_wakes_to_nothing(
    on, ray_hosts, undisturbed
):
    for _ in range(3):
        ray_hosts.add()
    project = on(ray_hosts, lease_seconds=2.0)
    script = project.start("run", "2")
    project.until("step 10", lambda: project.committed("run") >= 10, 150)
    victim = where(project, ray_hosts)[0]
    old = set(victim.pids("rank-"))
    victim.freeze()
    time.sleep(6)
    project.until("another gang", lambda: len(project.events("run", "gang.started")) == 2, 120)
    victim.thaw()
    project.until("the end of the old gang", lambda: not old & set(victim.pids("rank-")), 90)
    hurry(*ray_hosts.nodes)
    assert finished(project, script).result["weights"] == undisturbed(2)
    ray_hosts.restart_what_ended()
    ray_hosts.nothing_is_left()


@pytest.mark.cluster
def test_postgresql_is_started_again_and_the_object_store_refuses(on, ray_hosts, undisturbed):
    for _ in range(2):
        ray_hosts.add()
    server = Server(address=ray_hosts.hosts.services)
    try:
        project = on(ray_hosts, meta=server.fresh())
        script = project.start("run", "2")
        project.until("step 10", lambda: project.committed("run") >= 10, 150)
        server.stop(signal.SIGQUIT)
        time.sleep(3)
        server.start()
        before = project.committed("run")
        project.until("a checkpoint", lambda: project.committed("run") > before)
        project.proxy.stop()
        time.sleep(10)
        project.proxy.start()
        hurry(*ray_hosts.nodes)
        assert finished(project, script).result["weights"] == undisturbed(2)
        assert len(project.events("run", "attempt.started")) == 1
        ray_hosts.nothing_is_left()
        project.close()
    finally:
        server.close()


@pytest.fixture
def kept_hosts():
    """Hosts whose head keeps in Redis what outlives it."""
    from tests.hosts import needs_namespaces

    needs_namespaces()
    servers = []

    def redis(address):
        servers.append(Redis(address))
        return servers[0].address

    found = RayHosts(redis)
    yield found
    found.close()
    for server in servers:
        server.close()


@pytest.mark.cluster
def test_the_head_is_killed_and_started_again_and_no_step_is_lost(on, kept_hosts, undisturbed):
    """Agents speak to their controller without it. When it is back, it gives places again."""
    for _ in range(3):
        kept_hosts.add()
    project = on(kept_hosts)
    project.edit(("epochs: int = 10", "epochs: int = 30"))
    script = project.start("run", "2")
    project.until("step 10", lambda: project.committed("run") >= 10, 150)
    kept_hosts.kill_head()
    project.until("step 20", lambda: project.committed("run") >= 20)
    kept_hosts.start_head()
    project.until("step 30", lambda: project.committed("run") >= 30)
    assert len(project.events("run", "attempt.started")) == 1
    where(project, kept_hosts)[0].power_cut()
    project.until("another gang", lambda: len(project.events("run", "gang.started")) == 2, 120)
    hurry(*kept_hosts.nodes)
    run = finished(project, script)
    assert run.step == 240
    kept_hosts.nothing_is_left()


@pytest.mark.cluster
def test_without_redis_the_run_is_interrupted_and_the_same_script_goes_on(
    on, ray_hosts, undisturbed
):
    """Nodes end with a head that does not come back; a new cluster begins where it stopped."""
    ray_hosts.environment["RAY_gcs_rpc_server_reconnect_timeout_s"] = "5"
    first = [ray_hosts.add() for _ in range(2)]
    project = on(ray_hosts)
    script = project.start("run", "2")
    project.until("step 10", lambda: project.committed("run") >= 10, 150)
    ray_hosts.kill_head()
    out, _ = script.communicate(timeout=250)
    assert script.returncode == 9 and "was interrupted" in out, out
    assert project.newest("run").state == "running"
    project.nothing_left()
    ray_hosts.start_head()
    for host in first:
        ray_hosts.until("the end of its node", lambda host=host: not host.pids("raylet"))
    ray_hosts.restart_what_ended()
    hurry(*first)
    run = finished(project, project.start("run", "2"))
    assert run.result["weights"] == undisturbed(2)
    assert Path(first[0].disk / "node").exists()
    ray_hosts.nothing_is_left()
