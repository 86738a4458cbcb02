"""The whole way of a model, from its data to an alias, on a cluster whose hosts fail as machines
do: no bit of the weights changes, and nothing is left behind on any of them. `make chaos-cluster`
strikes 30 times; PENSTOCK_CHAOS_SEED=N repeats a run."""

import os
import textwrap
import time

import pytest
from tests.blobs.conftest import Proxy
from tests.hosts import needs_namespaces
from tests.postgres import Server
from tests.ray_hosts import RayHosts
from tests.redis_server import Redis
from tests.training.conftest import PROJECT
from tests.training.gale import Gale, story

pytestmark = [
    pytest.mark.ray,
    pytest.mark.torch,
    pytest.mark.faults,
    pytest.mark.s3,
    pytest.mark.root,
]

LEASE = 4.0  # seconds
SUITE = """
    SUITE = ps.Suite(
        "points", data="points:all", metrics=ps.classification(label="label", inputs=["point"]),
        gates=[ps.at_least("accuracy", 0.6)],
    )

    @dataclass
    class Config:"""
SOURCE = (
    PROJECT.replace("\n    @dataclass\n    class Config:", SUITE, 1)
    .replace(
        'print("RUN", trained.run.id, flush=True)',
        "report = ps.evaluate(SUITE, trained.model)\n"
        '        ps.promote(trained.model, "production", evidence=report)\n'
        '        print("RUN", trained.run.id, flush=True)',
    )
    .replace("time.sleep(config.pause)", "time.sleep(0 if calm() else config.pause)")
    .replace(
        "def fit(",
        "def calm() -> bool:\n        return os.path.exists('/mnt/calm')\n\n    def fit(",
    )
    .replace("import sys\n", "import os\n    import sys\n", 1)
    .replace("pause: float = 0.01", "pause: float = 0.15")
    .replace("checkpoint_every=10", "checkpoint_every=5")
)
# Of any number of ranks, also of one that changes, the weights are the same bits.
ELASTIC = (
    ("torch.nn.BatchNorm1d(32), ", ""),
    ("workers=int(workers)", "workers=(1, 2)"),
    ("run.steps(train)", "run.steps(train, micro_batches=4, reduction='ordered')"),
)


@pytest.fixture
def blown(made, moto, new_bucket, dice):
    """`blown(faults, epochs, elastic)`: a life of a model in that many faults."""
    ends = []

    def run(faults, epochs, elastic, only=None):
        needs_namespaces()
        source = textwrap.dedent(SOURCE).replace("epochs: int = 10", f"epochs: int = {epochs}")
        for old, new in ELASTIC if elastic else ():
            assert old in source, old
            source = source.replace(old, new)
        twin = made(source=source.replace("pause: float = 0.15", "pause: float = 0.0"))
        twin.run("run", "2")
        servers = []

        def redis(address):
            servers.append(Redis(address))
            return servers[0].address

        cluster = RayHosts(redis)
        ends.extend([cluster.close, lambda: servers[0].close()])
        server = Server(address=cluster.hosts.services)
        ends.append(server.close)
        proxy = Proxy(moto, host=cluster.hosts.services)
        proxy.start()
        ends.append(proxy.stop)
        for _ in range(3):
            cluster.add()
        url = f"s3://{new_bucket()}/p?endpoint={proxy.url}&region=us-east-1&deadline=15&timeout=5"
        settings = {"engine": cluster.engine, "meta": server.fresh(), "lease_seconds": LEASE}
        project = made(source=source, blobs=url, **settings)
        project.environment |= cluster.environment
        gale = Gale(project, dice, cluster, server, proxy)
        names = list(only or gale.faults)
        dice.shuffle(names)  # each comes once before any comes twice
        while len(gale.struck) < faults and not gale.is_over():
            gale.tend()
            time.sleep(dice.uniform(0, 0.5))
            gale.strike(names[len(gale.struck) % len(names)])
        for host in cluster.nodes:
            (host.disk / "calm").touch()
        while not gale.is_over():
            gale.tend()
        out = gale.end()
        assert len(gale.struck) == faults, "the run was over too early"
        told, alone = story(project), twin.newest("run")
        assert told == {
            "state": "finished", "weights": alone.result["weights"], "versions": 1, "production": 1
        }, out  # fmt: skip
        assert project.newest("run").step == 8 * epochs == alone.step
        project.nothing_left()
        cluster.restart_what_ended()
        cluster.nothing_is_left()
        project.close()

    yield run
    for end in reversed(ends):
        end()


@pytest.mark.long
@pytest.mark.timeout(500)
def test_two_faults_of_machines_change_no_bit_and_leave_nothing(blown):
    only = ["cut the power of a host", "cut a host off", "freeze a host", "kill the head"]
    blown(faults=2, epochs=30, elastic=True, only=only)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("elastic", [False, True], ids=["fixed", "elastic"])
def test_thirty_faults_of_machines_change_no_bit_and_leave_nothing(blown, elastic):
    faults = int(os.environ.get("PENSTOCK_CHAOS_FAULTS", "15"))
    blown(faults=faults, epochs=40 * faults, elastic=elastic)
