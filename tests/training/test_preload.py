"""The image holds what a rank needs before its first step, and what `preload=` names; it has one
thread."""

import subprocess
import sys

import pytest

from penstock.base.errors import BadInput
from penstock.training import preloads

pytestmark = pytest.mark.torch

SCRIPT = """
import sys
import penstock.training.preload
known = set(sys.modules)
import dataclasses
import torch
from penstock.blobs import open_blobs
from pydantic import TypeAdapter
from penstock.training.randomness import seed_all

@dataclasses.dataclass
class Config:
    rate: float = 0.1

seed_all(1)
open_blobs(f"file://{sys.argv[1]}")
TypeAdapter(Config).validate_python({"rate": 0.2})
model = torch.nn.parallel.DistributedDataParallel
torch.optim.AdamW(torch.nn.Linear(2, 2).parameters())
threads = open("/proc/self/status").read().split("Threads:")[1].split()[0]
imported = len(set(sys.modules) - known)
import torch._inductor.compile_fx
from penstock.jobs import preloading
print(imported, threads, preloading.unfit())
"""


def test_an_optimiser_imports_nothing_more_and_the_image_has_one_thread(tmp_path):
    environment = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    imported, threads, unfit = done.stdout.split()
    assert int(imported) == 0 and int(threads) == 1
    assert unfit == "None", "what compiles may be preloaded"


def test_what_cannot_be_preloaded_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "project")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "mine.py").touch()
    for modules, told in [
        (["numpi"], r'"numpi", and there is no such module\n.*mean "numpy"'),
        (["numpy", "no_such_module"], "Install its package"),
        (["numpy.no_such_module"], r'"numpy.no_such_module"'),
        (["json.decoder.more"], "no such module"),
        (["mine"], "part of this project"),
        (["not a name"], "is no module"),
        ("numpy", r'preload=\["numpy"\]'),
    ]:
        with pytest.raises(BadInput, match=told):
            preloads.checked(modules, tmp_path / "project")
    unloaded = "concurrent.futures.process"
    before = set(sys.modules)
    assert preloads.checked(["numpy.linalg", "json", unloaded, "json"], tmp_path) == [
        "numpy.linalg", "json", unloaded,
    ]  # fmt: skip
    assert set(sys.modules) - before <= {"concurrent"}, "nothing is imported for it"


def libraries(folder):
    """Stand-ins for packages that take long to import, outside of the project."""
    folder.mkdir()
    (folder / "heavy.py").write_text("import os\nIN = os.getpid()")
    (folder / "threaded.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    )
    return folder


@pytest.mark.long
def test_ranks_have_what_was_preloaded_and_what_was_not_is_said(project, tmp_path):
    project.environment["PYTHONPATH"] = str(libraries(tmp_path / "libraries"))
    project.edit(
        ("epochs=config.epochs", "epochs=1"),
        ("seed=3,", 'seed=3, preload=["heavy", "threaded"],'),
        (
            "    net = torch",
            "    import os, heavy\n"
            "    print(heavy.IN != os.getpid(), 'threaded' in sys.modules)\n    net = torch",
        ),
    )
    out = project.run("run", "2")
    assert out.count("not preloaded: threaded, because it started 1 thread\n") == 1, out
    for rank in (0, 1):
        assert project.log("run", f"rank-{rank}").splitlines()[0] == "True False"
    found = {"threaded": "it started 1 thread"}
    assert project.events("run", "image.left-out") == [{"modules": found}]
    assert project.newest("run").spec["not_preloaded"] == found
    command = [sys.executable, "-m", "penstock.cli.main", "runs", "show", "run"]
    shown = subprocess.run(
        command, cwd=project.folder, env=project.environment, capture_output=True, text=True
    ).stdout
    assert "threaded: it started 1 thread" in " ".join(shown.split())


def test_a_missing_package_is_said_before_anything_starts(project):
    project.edit(("seed=3,", 'seed=3, preload=["transformerz"],'))
    assert '"transformerz", and there is no such module' in project.run("run", "2", code=2)
    assert project.newest("run") is None
