"""Who a process is among those that a launcher started, and how a launched gang ends. Pure."""

import socket

import pytest

from penstock.base.errors import BadInput, LeaseHeld
from penstock.training.launched.fates import Said, fate
from penstock.training.launched.seat import first_host, seat_in

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
SRUN = {
    "SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0", "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "123456", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "gpu[07-08],x",
    "SLURM_TASKS_PER_NODE": "2(x2)",
}  # fmt: skip


def test_torchrun_is_known_by_its_variables():
    seat = seat_in({**TORCHRUN, "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"})
    assert (seat.launcher, seat.rank, seat.world_size, seat.local) == ("torchrun", 3, 4, (1, 2))
    assert (seat.host, seat.port, seat.one_machine) == ("node1", 29500, False)
    assert seat_in(TORCHRUN).one_machine
    assert (seat.place.workers, seat.place.launcher, seat.place.here) == (4, "torchrun", 2)


def test_srun_gives_the_first_host_and_a_port_of_the_job():
    seat = seat_in(SRUN)
    assert (seat.launcher, seat.rank, seat.world_size, seat.local) == ("srun", 1, 4, (1, 2))
    assert (seat.host, seat.port) == ("gpu07", 10_000 + 123456 % 20_000)
    given = seat_in({**SRUN, "MASTER_ADDR": "other", "MASTER_PORT": "1234"})
    assert (given.host, given.port) == ("other", 1234)
    assert seat_in({**SRUN, **TORCHRUN}).launcher == "torchrun"  # which srun started


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {**TORCHRUN, "PENSTOCK_RANK": "0"},  # a rank of ours
        {**TORCHRUN, "MASTER_ADDR": ""},
        {**SRUN, "SLURM_NTASKS": "1"},
        {key: value for key, value in SRUN.items() if key != "SLURM_STEP_ID"},  # a batch script
    ],
)
def test_others_are_no_ranks(environment):
    assert seat_in(environment) is None


def test_variables_that_are_no_numbers_are_one_clear_error():
    with pytest.raises(BadInput, match="make no sense"):
        seat_in({**TORCHRUN, "RANK": "two"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a", "a"), ("n[3,5-7],m", "n3"), ("n[01-03]-ib,m", "n01-ib"), ("a-1,b", "a-1")],
)
def test_the_first_of_a_list_of_hosts(nodes, first):
    assert first_host(nodes) == first


def ends(said, dead=(), now=10.0, leaving=None):
    told = {rank: Said(how, at) for rank, (how, at) in said.items()}
    found = fate(told, set(dead), 2, now, leaving)
    return None if found is None else (found.outcome, found.state, found.cause)


def test_the_end_of_a_launched_gang():
    both = {0: ("finished", 9.0), 1: ("finished", 9.5)}
    assert ends(both) == ("finished", "finished", "finished")
    assert ends({0: ("finished", 9.0)}) is None
    drained = {0: ("drained", 9.0), 1: ("drained", 9.0)}
    assert ends(drained, leaving="preempted") == ("preempted", None, "preempted")
    assert ends(drained, leaving="asked") == ("stopped", "stopped", "asked")
    assert ends({1: ("interrupted", 9.0)}) == ("stopped", "stopped", "Ctrl-C")


def test_a_death_explains_what_the_others_raise():
    assert ends({}, dead=[1]) == ("died", None, "rank 1 died")
    assert ends({0: ("raised", 9.9)}) is None  # it may be that another one's death made it raise
    assert ends({0: ("raised", 9.9)}, dead=[1]) == ("died", None, "rank 1 died")
    assert ends({0: ("raised", 8.0)})[:2] == ("failed", "failed")
    assert ends({0: ("finished", 9.0), 1: ("finished", 9.0)}, dead=[1])[0] == "finished"


class Stores:
    class settings:  # noqa: N801 - as `Stores.settings`
        lease_seconds = 0.6


def choosing(host: str, tries: int):
    """A decision that finds an owner for so many tries."""
    asked = []

    def choose():
        asked.append(1)
        if len(asked) <= tries:
            raise LeaseHeld("it is going on", "Wait.", host=host)
        return "decided"

    return choose, asked


def test_a_dead_holder_of_another_machine_is_waited_for(monkeypatch):
    from penstock.training.launched import launching

    launched = launching.Launched(Stores, seat_in(TORCHRUN), lambda line: None)
    choose, asked = choosing("elsewhere", tries=1)
    assert launched._patiently(choose) == "decided" and len(asked) == 2
    monkeypatch.setattr(launching, "_LEASE_SLACK", 0.0)
    choose, asked = choosing("elsewhere", tries=1000)  # it lives
    with pytest.raises(LeaseHeld):
        launched._patiently(choose)
    assert 2 <= len(asked) < 10
    choose, asked = choosing(socket.gethostname(), tries=1)  # here it is known at once
    with pytest.raises(LeaseHeld):
        launched._patiently(choose)
    assert len(asked) == 1
