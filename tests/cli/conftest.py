"""A home with one of everything, made through the real stores, and the command line on it."""

import json
import os
from pathlib import Path

import pytest

from penstock.base.process import Identity
from penstock.base.settings import load_settings
from penstock.cli.main import run
from penstock.jobs.stores import Stores, open_stores
from penstock.records import Attempt, Checkpoint, Evaluation, Run, to_json


class Terminal:
    """Runs commands in this process, as a pipe would see them."""

    def __init__(self, capsys) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str, expect: int = 0) -> str:
        """Standard output of a command that ends with `expect`."""
        self._capsys.readouterr()
        code = run(arguments)
        self.out, self.err = self._capsys.readouterr()
        assert code == expect, self.out + self.err
        assert "Traceback" not in self.out + self.err
        return self.out

    def json(self, *arguments: str, expect: int = 0):
        return json.loads(self(*arguments, "--json", expect=expect))


@pytest.fixture
def terminal(capsys, monkeypatch, tmp_path) -> Terminal:
    for name in [key for key in os.environ if key.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Terminal(capsys)


@pytest.fixture
def home(terminal, tmp_path) -> Path:
    """The folder of a home with two runs, a dataset, two models, evaluations, an alias."""
    with open_stores(load_settings()) as stores:
        add_runs(stores)
        add_versions(stores)
    return tmp_path / "home"


def add_runs(stores: Stores) -> None:
    """A finished run, and one whose owner is dead."""
    spec = {"entry": "train:fit", "config": {"lr": 0.1}, "world_size": 2, "cwd": "."}
    digest = stores.blobs.put(b"not really a checkpoint")
    with stores.meta.write() as tx:
        now = tx.now()
        tx.add_run(
            Run("run-aaa1", "base", "train", "finished", spec, step=400, created_at=now - 90)
        )
        tx.change_run("run-aaa1", ended_at=now - 30, data={"digits:train": "digits@1:train"})
        tx.add_attempt(Attempt("run-aaa1", 1, 1, now - 90, 0))
        tx.end_attempt("run-aaa1", 1, "rank 1 died by SIGKILL", 183, {})
        tx.add_attempt(Attempt("run-aaa1", 2, 2, now - 60, 180))
        tx.add_checkpoint(Checkpoint("run-aaa1", 180, digest, 1, now - 61, 23), [digest])
        tx.add_run(Run("run-bbb2", "wild", "train", "running", spec, step=7, created_at=now - 10))
        dead = Identity(Identity.mine().host, "another-boot", 1, 1)
        tx.take_lease("run/run-bbb2", str(dead), 30.0)
        tx.event("run/run-aaa1", "run.finished", {"step": 400})


def add_versions(stores: Stores) -> None:
    """digits@1; digits-cnn@1 that passed and @2 that did not."""
    data = stores.blobs.put(to_json({"splits": {"train": {"rows": 3}}, "lineage": {}}))
    reports = [
        stores.blobs.put(to_json({"metrics": {"accuracy": {"value": v}}})) for v in (0.98, 0.1)
    ]
    with stores.meta.write() as tx:
        tx.add_version("dataset", "digits", data, "prepare/1", {"rows": 3}, [data])
        for number, report in enumerate(reports, 1):
            package = stores.blobs.put(to_json({"name": "digits-cnn", "number": number}))
            tx.add_version("model", "digits-cnn", package, f"run/{number}", {}, [package])
            tx.add_evaluation(
                Evaluation(
                    id=f"eval-{number}",
                    key=f"key-{number}",
                    suite="digits",
                    model=f"digits-cnn@{number}",
                    dataset="digits@1:test",
                    digest=report,
                    passed=number == 1,
                    created_at=tx.now(),
                    summary={
                        "accuracy": 0.98,
                        "gates": [{"outcome": "failed", "says": "accuracy 0.1 is below 0.95"}],
                    },
                ),
                [report],
            )
