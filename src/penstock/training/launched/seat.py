"""Who this process is among those that torchrun or srun started. Pure: reads a mapping."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.base.errors import BadInput
from penstock.training.wanted import Place

RAY_TRAIN = "ray-train"
_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PORTS = 10_000, 20_000  # SLURM: the first one, and how many; below those that systems give away


@dataclass(frozen=True, slots=True)
class Seat:
    """One rank of a launched gang.

    launcher    "torchrun" (or what sets the same variables), "srun", or "ray-train"
    rank        0..world_size - 1
    local       (index, how many) of the ranks on this machine
    host, port  where the launcher's own store is to be found; under Ray Train the ranks have it
                already, and host is this rank's own
    """

    launcher: str
    rank: int
    world_size: int
    local: tuple[int, int]
    host: str
    port: int

    @property
    def one_machine(self) -> bool:
        return self.local[1] == self.world_size

    @property
    def place(self) -> Place:
        return Place(self.world_size, self.launcher, self.local[1])

    def variables(self) -> dict[str, str]:
        """What torch.distributed's own start by environment reads."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": str(self.local[0]),
            "LOCAL_WORLD_SIZE": str(self.local[1]),
            "MASTER_ADDR": self.host,
            "MASTER_PORT": str(self.port),
        }


def seat_in(environment: Mapping[str, str]) -> Seat | None:
    """None where no launcher started this process, or where it is a rank of Penstock's own.

    Raises BadInput on variables that are no numbers.
    """
    if "PENSTOCK_RANK" in environment:
        return None
    try:
        if all(environment.get(name) for name in _TORCHRUN):
            return _of_torchrun(environment)
        if "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment:  # not a batch script
            return _of_srun(environment)
    except ValueError as error:
        raise BadInput(
            f"the launcher's variables make no sense: {error}",
            "RANK, WORLD_SIZE and MASTER_PORT, or SLURM_PROCID and SLURM_NTASKS, are numbers. "
            "Unset them where no launcher is meant.",
        ) from None
    return None


def _of_torchrun(given: Mapping[str, str]) -> Seat:
    rank, world = int(given["RANK"]), int(given["WORLD_SIZE"])
    local = int(given.get("LOCAL_RANK", rank)), int(given.get("LOCAL_WORLD_SIZE", world))
    return Seat("torchrun", rank, world, local, given["MASTER_ADDR"], int(given["MASTER_PORT"]))


def _of_srun(given: Mapping[str, str]) -> Seat | None:
    world = int(given.get("SLURM_STEP_NUM_TASKS") or given.get("SLURM_NTASKS") or 1)
    if world == 1:
        return None
    nodes = int(given.get("SLURM_STEP_NUM_NODES") or given.get("SLURM_NNODES") or 1)
    here = world if nodes == 1 else _tasks_here(given)
    named = given.get("SLURM_STEP_NODELIST") or given.get("SLURM_JOB_NODELIST") or "localhost"
    host = given.get("MASTER_ADDR") or first_host(named)
    first, count = _PORTS
    chosen = first + int(given.get("SLURM_JOB_ID", "0")) % count
    port = int(given.get("MASTER_PORT") or chosen)
    local = int(given.get("SLURM_LOCALID", "0")), here
    return Seat("srun", int(given["SLURM_PROCID"]), world, local, host, port)


def _tasks_here(given: Mapping[str, str]) -> int:
    """Of "4(x2),3" (tasks of each node, in their order) the number of this node's."""
    text = given.get("SLURM_STEP_TASKS_PER_NODE") or given.get("SLURM_TASKS_PER_NODE") or "1"
    counts: list[int] = []
    for part in text.split(","):
        number, _, times = part.partition("(x")
        counts += [int(number)] * int(times.rstrip(")") or 1)
    return counts[min(int(given.get("SLURM_NODEID", "0")), len(counts) - 1)]


def first_host(nodes: str) -> str:
    """The first of SLURM's list of hosts.

    >>> first_host("gpu[007-009,12],login1"), first_host("a1,a2"), first_host("r[1-2]n[3,4]")
    ('gpu007', 'a1', 'r1n3')
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    text = first.group() if first else nodes
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", text)
