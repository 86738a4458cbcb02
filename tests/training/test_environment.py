"""The environment that ranks really see: the table of docs/training.md, and what the user has set,
also when another shell goes on with the run."""

import json
import os
import signal

import pytest

from penstock.jobs import control

pytestmark = pytest.mark.torch

SHOW = """
    import json, os
    seen = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG", "NCCL_ALGO",
            "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "PYTHONHASHSEED")
    print(json.dumps([torch.get_num_threads(), *map(os.environ.get, seen)]))
    while run.global_step == 0 and not os.path.exists("go"):
        time.sleep(0.02)
    import torch.nn.functional as F
"""


def told(project, rank):
    lines = project.log("run", f"rank-{rank}").splitlines()
    return json.loads([line for line in lines if line.startswith("[")][-1])


def test_ranks_see_the_table_and_what_the_user_set(project):
    project.edit(("    import torch.nn.functional as F\n", SHOW), (", threads=1", ""))
    project.edit(("epochs=config.epochs", "epochs=1"))
    project.environment |= {"OMP_NUM_THREADS": "3", "NCCL_ALGO": "Ring"}
    (project.folder / "go").touch()
    project.run("run", "2")
    for rank in (0, 1):
        assert told(project, rank) == [3, "3", "3", ":4096:8", "Ring", "lo", "lo", "0"]
    project.environment["OMP_NUM_THREADS"] = "1"
    assert "reused" in project.run("run", "2"), "an unchanged run, with the threads that it had"


@pytest.mark.long
def test_what_the_user_set_holds_when_another_shell_goes_on(project):
    project.edit(
        ("    import torch.nn.functional as F\n", SHOW),
        (", threads=1", ', device="auto"'),
        ("epochs=config.epochs", "epochs=1"),
    )
    theirs = {"NCCL_ALGO": "Ring", "MKL_NUM_THREADS": "3"}
    project.environment |= theirs
    script = project.start("run", "2")
    project.until("both ranks", lambda: len(project.pids("run", "rank")) == 2)
    script.send_signal(signal.SIGINT)
    script.communicate(timeout=60)
    assert project.newest("run").state == "stopped"
    for name in theirs:
        del project.environment[name]

    (project.folder / "go").touch()
    with project.stores() as stores:
        control.resume(stores, project.newest("run").id)
    project.until("its end", lambda: project.newest("run").state == "finished")
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    wanted = [threads, str(threads), "3", ":4096:8", "Ring", "lo", "lo", "0"]
    for rank in (0, 1):
        assert told(project, rank) == wanted
