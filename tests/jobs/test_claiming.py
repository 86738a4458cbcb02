"""Claims in a store: taken under the run's lease, free when the run is dead, in order."""

import os

import pytest

from penstock.base.errors import BadInput, LeaseLost
from penstock.base.process import Identity
from penstock.base.settings import load_settings
from penstock.jobs.claiming import Claiming
from penstock.jobs.holding import Holding
from penstock.jobs.stores import open_stores
from penstock.records import Run

SPEC = {"device": "cuda", "world_size": 1, "threads": 1}


@pytest.fixture
def stores(tmp_path):
    settings = load_settings(
        folder=tmp_path, environment={}, home=tmp_path / "home", devices="gpu:GPU-a,GPU-b"
    )
    with open_stores(settings) as found:
        yield found


def owned(stores, name, **spec):
    """A run that this process owns, and its claiming."""
    with stores.meta.write() as tx:
        tx.add_run(Run(name, name, "train", "pending", {**SPEC, **spec}))
    holding = Holding(stores, name)
    holding.take()
    claiming = Claiming(stores, name, holding.commit)
    claiming.want({**SPEC, **spec})
    return holding, claiming


def claims(stores):
    with stores.meta.read() as db:
        return {each.run_id: each.holds for each in db.claims()}


def events(stores, run, kind):
    with stores.meta.read() as db:
        return [e.body for e in db.events(subject=f"run/{run}") if e.kind == kind]


def die(stores, run, holder=None):
    """The owner of a run is dead, as the store sees it."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    dead = str(Identity(Identity.mine().host, Identity.mine().boot, child, 1))
    with stores.meta.write() as tx:
        tx.release_lease(tx.find_lease(f"run/{run}"))
        tx.take_lease(f"run/{run}", holder or dead, 60.0)


def test_ranks_see_the_gpus_that_their_run_holds(stores):
    _, one = owned(stores, "one")
    _, two = owned(stores, "two")
    assert one.has_all() and two.has_all()
    assert one.environment() == {"CUDA_VISIBLE_DEVICES": "GPU-a"}
    assert two.environment() == {"CUDA_VISIBLE_DEVICES": "GPU-b"}
    assert two.payload() == {"device": "cuda", "cores": [], "gpus": [1], "named": True}
    _, cpu = owned(stores, "cpu", device="cpu")
    assert cpu.has_all() and cpu.environment() == {"CUDA_VISIBLE_DEVICES": ""}
    assert claims(stores) == {"one": ["gpu/GPU-a"], "two": ["gpu/GPU-b"]}


def test_who_waits_is_told_for_whom_once_and_gets_it_with_the_lease(stores):
    holding, both = owned(stores, "both", world_size=2)
    _, late = owned(stores, "late")
    assert both.has_all() and not late.has_all() and not late.has_all()
    (told,) = events(stores, "late", "devices.queued")
    assert told["shown"] == "1 GPU"
    assert told["waits_for"] == ["run both holds gpu/GPU-a, gpu/GPU-b"]
    holding.release()
    assert claims(stores) == {"late": []}
    assert late.has_all() and events(stores, "late", "devices.granted")[0]["waited"] >= 0
    assert claims(stores) == {"late": ["gpu/GPU-a"]}


def test_what_a_dead_run_held_is_free_at_once(stores):
    _, dead = owned(stores, "dead", world_size=2)
    _, heir = owned(stores, "heir", world_size=2)
    assert dead.has_all() and not heir.has_all()
    die(stores, "dead")
    assert heir.has_all() and claims(stores) == {"heir": ["gpu/GPU-a", "gpu/GPU-b"]}


def test_a_dead_controller_whose_ranks_live_still_holds(stores):
    """Its agent starts another one; until then nobody takes the GPUs from its ranks."""
    _, one = owned(stores, "one", world_size=2)
    _, late = owned(stores, "late")
    assert one.has_all()
    runtime = stores.layout.runtime("run/one")
    me = Identity.mine()
    rank = f'[{{"role": "rank", "pid": {me.pid}, "started": {me.started}}}]'
    (runtime / "processes.json").write_text(rank)
    die(stores, "one")
    assert not late.has_all()
    (runtime / "processes.json").unlink()
    assert late.has_all()


def test_from_another_machine_only_the_lease_tells(stores):
    """A queue of this machine, whose owner is on another: as with a shared home."""
    _, one = owned(stores, "one", world_size=2)
    _, late = owned(stores, "late")
    assert one.has_all()
    die(stores, "one", holder="elsewhere/some-boot/1/1")
    assert not late.has_all()
    with stores.meta.write() as tx:
        lease = tx.find_lease("run/one")
        tx.renew_lease(lease, -1.0)
    assert late.has_all()


def test_an_owner_that_lost_its_run_claims_nothing(stores):
    _, stale = owned(stores, "run")
    die(stores, "run")
    with pytest.raises(LeaseLost):
        stale.has_all()
    assert claims(stores) == {}


def test_another_number_of_ranks_is_another_claim_and_gives_the_old_back(stores):
    _, one = owned(stores, "one", world_size=2)
    _, late = owned(stores, "late")
    assert one.has_all() and not late.has_all()
    one.want({**SPEC, "world_size": 1})
    assert not one.has_all()  # the other one came before the new wish
    assert late.has_all() and one.has_all()
    assert claims(stores) == {"late": ["gpu/GPU-a"], "one": ["gpu/GPU-b"]}
    one.want({**SPEC, "device": "cpu"})
    assert one.has_all() and claims(stores) == {"late": ["gpu/GPU-a"]}


def test_leaving_the_queue_leaves_nothing(stores):
    _, both = owned(stores, "both", world_size=2)
    _, late = owned(stores, "late")
    assert both.has_all()
    looks = iter((False, True))
    assert not late.wait(lambda: next(looks))
    assert claims(stores) == {"both": ["gpu/GPU-a", "gpu/GPU-b"]}


def test_cores_are_claimed_where_the_setting_says_so(tmp_path):
    settings = load_settings(
        folder=tmp_path, environment={}, home=tmp_path, devices="gpu:", claim_cores=True
    )
    cores = sorted(os.sched_getaffinity(0))
    with open_stores(settings) as stores:
        _, all_ = owned(stores, "all", device="cpu", threads=len(cores))
        _, late = owned(stores, "late", device="auto")
        assert all_.has_all() and all_.payload()["cores"] == cores
        assert not late.has_all() and late.environment() == {}


def test_more_than_there_can_be_is_an_error_of_the_run(stores):
    with pytest.raises(BadInput, match="needs 3 GPUs"):
        owned(stores, "much", world_size=3)
