"""What ranks find in their environment, and how many threads they have: of mappings alone."""

import pytest

from penstock.jobs import environment
from penstock.jobs.environment import of_ranks, threads_of


@pytest.mark.parametrize(
    ("asked", "ranks", "given", "torchrun", "threads"),
    [
        (None, 2, {}, False, 4),
        (None, 3, {}, False, 2),
        (None, 16, {}, False, 1),
        (None, 0, {}, False, 8),  # inside the script
        (3, 2, {"OMP_NUM_THREADS": "5"}, False, 3),
        (None, 2, {"OMP_NUM_THREADS": "5"}, False, 5),
        (None, 2, {"OMP_NUM_THREADS": "5,2"}, False, 5),
        (None, 2, {"OMP_NUM_THREADS": "many"}, False, 4),
        (None, 2, {"OMP_NUM_THREADS": "1"}, False, 1),
        (None, 2, {"OMP_NUM_THREADS": "1"}, True, 4),  # torchrun's word, not the user's
        (None, 1, {"OMP_NUM_THREADS": "1"}, True, 1),
        (None, 2, {"OMP_NUM_THREADS": "2"}, True, 2),
    ],
)
def test_threads_are_those_asked_for_or_set_or_the_cores_shared_out(
    asked, ranks, given, torchrun, threads
):
    assert threads_of(asked, ranks, 8, given, torchrun) == threads


def test_defaults_of_ranks_are_these():
    assert of_ranks(2, "auto", {"HOME": "/root", "CUDA_VISIBLE_DEVICES": "0"}) == {
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "TORCHINDUCTOR_COMPILE_THREADS": "2",
        "PYTHONHASHSEED": "0",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        "NCCL_DEBUG": "WARN",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
    assert not [name for name in of_ranks(2, "cpu", {}) if name.startswith("NCCL")]


def test_what_the_user_has_set_wins_and_travels():
    given = {
        "MKL_NUM_THREADS": "7",
        "NCCL_SOCKET_IFNAME": "eth1",
        "NCCL_ALGO": "Ring",
        "TORCH_NCCL_TRACE_BUFFER_SIZE": "10",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "CUBLAS_WORKSPACE_CONFIG": ":16:8",
        "PYTHONHASHSEED": "5",
    }
    found = of_ranks(2, "cpu", {**given, "OMP_NUM_THREADS": "5", "AWS_SECRET_ACCESS_KEY": "x"})
    assert {name: found[name] for name in given} == given
    assert found["OMP_NUM_THREADS"] == "2", "threads= said so"
    assert "AWS_SECRET_ACCESS_KEY" not in found, "nothing else gets into the row"


def test_an_image_has_one_thread_whatever_is_set_for_arrow():
    found = of_ranks(1, "cpu", {"JE_ARROW_MALLOC_CONF": "dirty_decay_ms:0"})
    assert found["JE_ARROW_MALLOC_CONF"] == "dirty_decay_ms:0,background_thread:false"


def test_a_process_of_somebody_else_keeps_what_it_has():
    theirs = {"GLOO_SOCKET_IFNAME": "eth0"}
    environment.settle_here(theirs)
    assert theirs == {"GLOO_SOCKET_IFNAME": "eth0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    environment.settle_here(theirs, one_machine=True)
    assert theirs["GLOO_SOCKET_IFNAME"] == "eth0" and theirs["NCCL_SOCKET_IFNAME"] == "lo"
