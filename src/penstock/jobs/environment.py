"""Threads and environment of processes that compute: decided here and nowhere else. Pure.

What the user has set in the script's environment wins over every default, and travels with the run:
another shell that goes on with it has the same. docs/training.md has the table.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from pathlib import Path

_KEPT = (
    "CUBLAS_", "CUDA_DEVICE_MAX_", "CUDNN_", "GLOO_", "GOMP_", "KMP_", "MKL_", "NCCL_", "OMP_",
    "OPENBLAS_", "PYTORCH_", "TORCHINDUCTOR_", "TORCH_COMPILE_", "TORCH_DISTRIBUTED_", "TORCH_LOGS",
    "TORCH_NCCL_", "TRITON_",
)  # fmt: skip
_ONE_MACHINE = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
_EXACT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # else sums of cuBLAS depend on chance


def threads_of(
    asked: int | None, ranks: int, cores: int, given: Mapping[str, str], torchrun: bool = False
) -> int:
    """Threads that each rank computes with.

    asked     `threads=`; None: OMP_NUM_THREADS where it is set, else the cores, shared out
    ranks     how many share the cores of this machine
    given     the environment of the script
    torchrun  it set OMP_NUM_THREADS=1 where nobody did: a 1 of several ranks says nothing

    >>> threads_of(None, 2, 8, {}), threads_of(None, 2, 8, {"OMP_NUM_THREADS": "3"})
    (4, 3)
    """
    said = given.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if asked:
        return asked
    if said.isdigit() and int(said) > 0 and not (torchrun and ranks > 1 and said == "1"):
        return int(said)
    return max(1, cores // max(1, ranks))


def of_ranks(threads: int, device: str, given: Mapping[str, str]) -> dict[str, str]:
    """What ranks of one machine find in their environment, besides that of the script.

    threads  of each, as `threads_of` gives them
    device   "cpu", "cuda", "auto" as asked for: ranks that cannot get a GPU need nothing of NCCL
    """
    count = str(threads)
    wanted = {**_forked(given, count), "MKL_NUM_THREADS": count, **_EXACT, **_ONE_MACHINE}
    wanted["TORCHINDUCTOR_COMPILE_THREADS"] = count  # else each rank starts one for every core
    if device == "cpu":
        del wanted["NCCL_SOCKET_IFNAME"]
    else:
        wanted["NCCL_DEBUG"] = "WARN"  # why a communicator failed, in the log of the rank
        # Whether there is a GPU is then asked without CUDA, which no fork could use any more.
        wanted["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    return {**wanted, **_theirs(given, wanted), "OMP_NUM_THREADS": count}


def across(environment: Mapping[str, str], interface: str) -> dict[str, str]:
    """The same of ranks of several machines: they talk over a network interface, unless the user
    said over which.

    >>> across({"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "ib0"}, "eth1")
    {'GLOO_SOCKET_IFNAME': 'eth1', 'NCCL_SOCKET_IFNAME': 'ib0'}
    """
    own = {name for name, value in _ONE_MACHINE.items() if environment.get(name) == value}
    return {**environment, **dict.fromkeys(sorted(own), interface)}


def of_map_workers(threads: int, given: Mapping[str, str]) -> dict[str, str]:
    """The same of the workers of a map."""
    wanted = _forked(given, str(threads))
    return {**wanted, **_theirs(given, wanted), "OMP_NUM_THREADS": str(threads)}


def of_data_workers() -> dict[str, str]:
    """Of helpers that make batches beside a computation: one thread each, whatever the script's
    own environment says, because there are as many of them as was asked for."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def settle_here(
    environment: MutableMapping[str, str], one_machine: bool = False, compiled: Path | None = None
) -> None:
    """Defaults that are read late, for a process that has begun: also one that Penstock did not
    start (workers=0, `ps.attach`, a launcher's rank).

    one_machine  all ranks are here: they talk over the loopback interface
    compiled     folder for what torch.compile compiles
    """
    wanted = {**_EXACT, **(_ONE_MACHINE if one_machine else {})}
    if compiled is not None:
        wanted["TORCHINDUCTOR_CACHE_DIR"] = str(compiled / "inductor")
        wanted["TRITON_CACHE_DIR"] = str(compiled / "triton")
    for name, value in wanted.items():
        environment.setdefault(name, value)


def _forked(given: Mapping[str, str], threads: str) -> dict[str, str]:
    """What an image is to have, which must stay single-threaded."""
    arrow = "background_thread:false"
    if theirs := given.get("JE_ARROW_MALLOC_CONF"):
        arrow = f"{theirs},{arrow}"
    return {"OMP_NUM_THREADS": threads, "PYTHONHASHSEED": "0", "JE_ARROW_MALLOC_CONF": arrow}


def _theirs(given: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """What the user has set of all this."""
    names = {name for name in given if name in wanted or name.startswith(_KEPT)}
    return {name: given[name] for name in sorted(names - {"JE_ARROW_MALLOC_CONF"})}
