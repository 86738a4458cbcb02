"""What can be wrong is said once, clearly, and nothing is lost."""

import shutil
import signal

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.timeout(180)]


def test_a_function_that_raises_shows_its_own_traceback_and_is_mended_and_continued(project):
    project.edit(
        (
            "    for batch in run.steps(train):",
            "    for batch in run.steps(train):\n"
            "        if run.rank == 1 and run.global_step == 33:\n"
            "            raise ZeroDivisionError('on purpose')",
        )
    )
    out = project.run("run", "2", code=8)
    assert out.index("Traceback") < out.index("error [user-code]")
    assert "ZeroDivisionError: on purpose (rank 1, step 33)" in out
    assert 'File "train.py", line' in out
    assert str(project.home) not in out[: out.index("error [user-code]")]
    run = project.newest("run")
    assert run.state == "failed"
    assert len(project.events("run", "attempt.started")) == 2  # tried again once, not for ever
    assert project.committed("run") == 30
    project.edit(("run.global_step == 33", "run.global_step == 330"))
    out = project.run("run", "2")
    assert "it is unfinished (failed at step" in out
    assert "changed: train.fit changed" in out
    assert project.newest("run").id == run.id
    assert project.newest("run").state == "finished"


@pytest.mark.long
def test_a_checkpoint_of_another_model_is_refused_by_name_and_shape_and_stays(project):
    project.edit(
        (
            "    for batch in run.steps(train):",
            "    for batch in run.steps(train):\n"
            "        if run.global_step == 13:\n"
            "            raise ZeroDivisionError",
        )
    )
    project.run("run", "2", code=8)
    assert project.committed("run") == 10
    original = (project.folder / "train.py").read_text()
    project.edit(("Linear(6, 32)", "Linear(6, 16)"), ("BatchNorm1d(32)", "BatchNorm1d(16)"))
    project.edit(("Linear(32, 2)", "Linear(16, 2, bias=False)"))
    out = project.run("run", "2", code=2)
    assert "the checkpoint of step 10 does not fit model: 8 of its parameters and buffers" in out
    assert "model.0.weight is [16, 6] here and [32, 6] there" in out and "and 4 more" in out
    assert project.committed("run") == 10
    (project.folder / "train.py").write_text(original)
    project.edit(("run.global_step == 13", "run.global_step == 130"))
    project.run("run", "2")
    assert project.newest("run").state == "finished"


def test_a_missing_main_guard_is_one_clear_error(project):
    project.edit(('if __name__ == "__main__":\n    ps.main(main)', "ps.main(main)"))
    out = project.run("run", "2", code=2)
    assert "error [missing-main-guard]" in out
    assert "Traceback" not in out
    assert 'if __name__ == "__main__"' in out
    assert len(project.events("run", "attempt.started")) == 1


TRIES = """
import importlib
import sys

import penstock as ps

def main() -> None:
    for name in sys.argv[1:]:
        tried = importlib.import_module(name)
        try:
            ps.train(tried.fit, tried.Config(), name=name, workers=0)
        except ps.errors.PenstockError as error:
            print(name, error.exit_code, error.what, error.fix)

if __name__ == "__main__":
    ps.main(main)
"""

EMPTY = """
from torch.utils.data import Dataset, IterableDataset

class Empty(IterableDataset):
    def __iter__(self):
        return iter(())

    def __getitem__(self, rows):
        return NoRows()

class NoRows(Dataset):
    def __len__(self):
        return 0

    def __getitem__(self, row):
        raise IndexError(row)

EMPTY = Empty()
"""


@pytest.mark.long
def test_loops_that_cannot_work_are_refused(project):
    """Each says what is wrong with it; in the script's own process, so that one tries them all."""
    cases = [
        ('"points:all", batch', '"pionts:all", batch', 3, 'Did you mean "points"'),
        ('"points:all", batch', '"points:train", batch', 3, "all"),
        ("batch_size=24", "batch_size=0", 2, "batch size of 0"),
        ("run.track(model=model, optimizer=optimizer, train=train)", "pass", 2, "is tracked"),
        ("optimizer=optimizer, train=train)", "train=train)", 2, "not tracked"),
        ("optimizer=optimizer, train=train)", "optimizer=optimizer, x=3)", 2, "no state_dict"),
        ('run.log({"train/loss": loss})', 'run.keep_best("train/loss")', 2, "was not logged"),
        ('run.log({"train/loss": loss})', "run.every(0)", 2, "never comes"),
        (
            "train=train)",
            'train=train, note=__import__("types").SimpleNamespace('
            "state_dict=lambda: {'seen': {1, 2}}, load_state_dict=print))",
            2,
            "shared.tracked.note.seen cannot be put into a checkpoint",
        ),
        (
            'run.data("points:all", batch_size=24, epochs=config.epochs)',
            "run.data(EMPTY, batch_size=24)",
            2,
            "the data has no batch",
        ),
        ('run.data("points:all", ', "run.data(EMPTY[0:0], ", 2, "there are 0 rows"),
    ]
    path = project.folder / "train.py"
    text = path.read_text()
    for number, (old, new, _, _) in enumerate(cases):
        assert old in text
        (project.folder / f"try_{number}.py").write_text(EMPTY + text.replace(old, new))
    path.write_text(text.replace("trained = ps.train(", "return\n    ps.train("))
    project.run("prepare", "0")
    path.write_text(TRIES)
    out = project.run(*(f"try_{number}" for number in range(len(cases))))
    for number, (_, _, code, words) in enumerate(cases):
        [line] = [line for line in out.splitlines() if line.startswith(f"try_{number} ")]
        assert line.startswith(f"try_{number} {code} ") and words in line


def test_a_loop_that_cannot_work_is_refused_by_ranks_at_once(project):
    project.edit(("batch_size=24", "batch_size=25"))
    assert "25" in project.run("run", "2", code=2)
    assert len(project.events("run", "attempt.started")) == 1


def test_more_workers_than_cores_could_hold_are_refused_before_anything_starts(project):
    assert "workers=999 on a machine with" in project.run("run", "999", code=2)
    assert project.newest("run") is None


@pytest.mark.long
def test_changed_code_is_refused_or_forked_as_asked(project):
    script = project.start("run", "0")
    project.until("step 10", lambda: project.committed("run") >= 10)
    project.signal(script.pid, signal.SIGINT)
    script.communicate(timeout=60)
    first = project.newest("run")
    assert first.state == "stopped"
    project.edit(("lr=1e-2", "lr=2e-2"))
    project.edit(("seed=3,", 'seed=3, on_change="refuse",'))
    out = project.run("run", "0", code=5)
    assert "train.fit changed" in out
    assert project.newest("run") == first
    project.edit(('on_change="refuse"', 'on_change="fork"'))
    project.run("run", "0")
    assert project.newest("run").id != first.id


@pytest.mark.long
def test_a_run_that_goes_on_elsewhere_is_not_started_twice(project):
    project.edit(("pause: float = 0.01", "pause: float = 0.2"))  # it outlasts the second's start
    script = project.start("run", "0")
    project.until("step 10", lambda: project.committed("run") >= 10)
    assert "is going on already" in project.run("run", "0", code=4)
    project.signal(script.pid, signal.SIGINT)
    script.communicate(timeout=60)
    assert project.newest("run").state == "stopped"


def test_a_corrupt_shard_is_named_before_training_on_it(project):
    project.run("first", "0")
    with project.stores() as stores:
        from penstock.data import read_manifest

        with stores.meta.read() as db:
            version = db.get_version("dataset", "points")
        shard = read_manifest(stores.blobs, version.digest).shards[0].digest
        path = stores.blobs.path(shard)
        path.chmod(0o644)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    shutil.rmtree(project.home / "cache" / "shards")
    project.edit(('ps.prepare("points", make_points, key="id", splits={"all": 1.0})', "pass"))
    out = project.run("second", "1", code=6)
    assert "points@1" in out and "shard 0" in out
    assert project.newest("second").state == "failed"


@pytest.mark.root
def test_without_room_in_shared_memory_checkpoints_go_through_the_disk(project, undisturbed):
    small = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
    out = project.run("run", "2", under=("unshare", "-m", "sh", "-c", small, "sh"))
    assert "no room in memory for checkpoints" in out
    assert project.newest("run").result["weights"] == undisturbed(2)


@pytest.mark.long
def test_workers_0_gives_the_weights_of_one_rank_and_a_finished_run_is_given_again(
    project, undisturbed
):
    project.run("run", "0")
    first = project.newest("run")
    assert first.result["weights"] == undisturbed(1)
    assert "reused run run, because it finished" in project.run("run", "0")
    assert project.newest("run") == first
    project.run("run", "0", "fresh")
    assert project.newest("run").id != first.id


@pytest.mark.long
def test_workers_0_stopped_by_ctrl_c_or_killed_goes_on_where_it_was(project, undisturbed):
    waits = "        while run.global_step == 60 and not pathlib.Path('go').exists():\n"
    project.edit(("        loss =", f"{waits}            time.sleep(0.01)\n        loss ="))
    project.edit(("import sys", "import pathlib, sys"))
    for number, ending, state in (
        (20, signal.SIGINT, "stopped"),
        (50, signal.SIGKILL, "running"),
    ):
        script = project.start("run", "0")
        project.until(f"step {number}", lambda least=number: project.committed("run") >= least)
        project.signal(script.pid, ending)
        script.communicate(timeout=60)
        assert project.newest("run").state == state
    (project.folder / "go").touch()
    out = project.run("run", "0")
    assert "it is unfinished (interrupted at step" in out and "resumed at step" in out
    assert project.newest("run").result["weights"] == undisturbed(1)
    began = [body["from_step"] for body in project.events("run", "attempt.started")]
    assert len(began) == 3 and began[1] >= 20 and began[2] >= 50


@pytest.mark.parametrize("workers", ["0", pytest.param("1", marks=pytest.mark.long)])
def test_a_model_that_cannot_be_exported_is_said_where_the_script_is_run(project, workers):
    project.edit(("epochs: int = 10", "epochs: int = 1"))
    project.edit(
        (
            "def fit(",
            "import torch\n\nclass Wild(torch.nn.Linear):\n"
            "    def forward(self, point):\n"
            "        return super().forward(point if point.sum() > 0 else -point)\n\n"
            "def fit(",
        )
    )
    project.edit(("    net = ", "    net = Wild(6, 2)\n    old = "))
    out = project.run("run", workers)
    assert "penstock: published points@1" in out
    assert out.count("torch.export does not convert it") == 1
    assert "published are the weights and the name of the class, no program" in out
    [told] = project.events("run", "model.published")
    assert told["reference"] == "points@1" and told["notes"][0] in out


def test_data_that_is_not_as_expected_is_refused_or_left_out_before_the_first_step(project):
    rule = '[columns.label]\nrange = { most = 0, severity = "refuse" }\n'
    (project.folder / "points.toml").write_text(rule)
    project.edit(("batch_size=24,", 'batch_size=24, expect="points.toml",'))
    project.edit(("epochs: int = 10", "epochs: int = 2"))
    out = project.run("run", "2", code=5)
    assert "dataset points@1" in out and "columns.label" in out
    assert "(point-" in out  # rows are named
    assert project.newest("run").step == 0
    (project.folder / "points.toml").write_text(rule.replace("refuse", "quarantine"))
    out = project.run("run", "2")
    (checked,) = project.events("run", "data.checked")
    left = 192 - checked["aside"]["all"]
    assert 24 < left < 192
    assert project.newest("run").step == 2 * (left // 24)
    assert f"points@1 does not meet 1 expectation; {192 - left} rows set aside" in out
    assert "points@1 is not as expected: columns.label" in project.log("run", "rank-0")
