"""A run without enough memory: in the function, and by the kernel's hand."""

import contextlib
import os
from pathlib import Path

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.faults]

GROUPS = Path("/sys/fs/cgroup/memory")


def test_what_does_not_fit_is_tried_twice_more_and_then_said(project):
    project.edit(
        (
            "run.backward(loss)",
            "run.backward(loss); run.global_step < 12 or torch.empty(1 << 55)",
        )
    )
    out = project.run("base", "1", code=8)
    assert "[out-of-memory]" in out and "micro_batches" in out
    run = project.newest("base")
    assert run.state == "failed" and run.error["code"] == "out-of-memory"
    assert "3 times without memory in a row" in run.error["what"]
    assert len(project.events("base", "attempt.started")) == 3


@pytest.fixture
def group():
    """A control group for memory, of version 1."""
    folder = GROUPS / f"penstock-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("no memory control group can be made here")
    (folder / "memory.limit_in_bytes").write_text(str(1400 << 20))
    with contextlib.suppress(OSError):  # no accounting of swap
        (folder / "memory.memsw.limit_in_bytes").write_text(str(1400 << 20))
    yield folder
    with contextlib.suppress(OSError):
        folder.rmdir()


@pytest.mark.root
@pytest.mark.long
def test_a_rank_that_the_kernel_kills_for_memory_is_told_from_one_that_was_killed(project, group):
    project.edit(
        ("time.sleep(config.pause)", "time.sleep(config.pause); grow(run)"),
        (
            "def main()",
            "GROWN = []\n\n"
            "def grow(run):\n"
            "    from pathlib import Path\n"
            "    flag = Path('grown')\n"
            "    if run.global_step == 15 and not flag.exists():\n"
            "        flag.touch()\n"
            "        while True:\n"
            "            GROWN.append(np.ones(8 << 20))\n\n"
            "def main()",
        ),
    )
    into = f'echo $$ > {group}/cgroup.procs && exec "$@"'
    out = project.run("base", "1", under=("sh", "-c", into, "sh"))
    assert "died by the kernel, which was out of memory" in out
    (died,) = project.events("base", "rank.died")
    assert died["oom"] and died["signal"] == "SIGKILL"
    (ended, _) = project.events("base", "attempt.ended")
    assert ended["cause"] == "rank 0 was killed by the kernel: out of memory"
    assert project.newest("base").state == "finished"
