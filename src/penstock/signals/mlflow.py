"""Scalars to an MLflow tracking server or database: one way, as the run goes.

A run of ours is one run of MLflow's, found again by its tag `penstock.run`. What is written stays;
every (name, step) is written at most once over any number of restarts, because a new forwarder asks
for the highest step of every name first, and a batch is one transaction on the other side. With
`poll(final=True)` after the run's end exactly once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from penstock.base.errors import MissingExtra, Unavailable
from penstock.signals.settling import Settled, Settling

EXPERIMENT = "penstock"
TAG = "penstock.run"
_BATCH = 1000  # values that MLflow takes at once
_REFUSED = re.compile(r"[^\w\-. :/]")


class Forwarder:
    """Forwards one run. One forwarder per run at a time; it starts no thread.

    folder  of the run's segments; may not exist yet
    target  tracking URI (http://…, sqlite:///…), or a folder, which gets an `mlflow.db`
    run_id  ours; `name` is how MLflow shows it

    Raises MissingExtra (no `mlflow`), Unavailable (the target does not answer or cannot be
    written).
    """

    def __init__(self, folder: Path, target: str, run_id: str, name: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a run's own affairs stay here
        client_of = _import()
        self._target = target
        with self._errors():
            self._client = client_of(tracking_uri=_uri(target))
            self._theirs = self._find(run_id) or self._make(run_id, name)
            self._client.update_run(self._theirs, status="RUNNING")
            self._settling = Settling(folder, self._read_back(), shown)

    def poll(self, final: bool = False) -> int:
        """Write what has settled since; returns how many values. `final`: write all there is.

        After Unavailable this forwarder is done with: another one begins from what arrived.
        """
        due = self._settling.take(final)
        for at in range(0, len(due), _BATCH):
            with self._errors():
                self._write(due[at : at + _BATCH])
        return len(due)

    def end(self, finished: bool) -> None:
        """Say how it ended: FINISHED, or KILLED, after which it may go on."""
        with self._errors():
            self._client.set_terminated(self._theirs, "FINISHED" if finished else "KILLED")

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is open between two calls."""

    def _write(self, due: list[Settled]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(shown(each.name), each.value, int(each.at * 1000), each.step) for each in due
        ]
        self._client.log_batch(self._theirs, metrics=metrics)

    def _find(self, run_id: str) -> str | None:
        experiment = self._client.get_experiment_by_name(_experiment())
        if experiment is None:
            return None
        found = self._client.search_runs(
            [experiment.experiment_id], filter_string=f"tags.`{TAG}` = '{run_id}'"
        )
        return found[0].info.run_id if found else None

    def _make(self, run_id: str, name: str) -> str:
        known = self._client.get_experiment_by_name(_experiment())
        if known is not None:
            experiment = known.experiment_id
        else:
            experiment = self._client.create_experiment(_experiment(), _artifacts(self._target))
        made = self._client.create_run(experiment, run_name=name, tags={TAG: run_id})
        return str(made.info.run_id)

    def _read_back(self) -> dict[str, int]:
        """Their name -> the highest step that is there."""
        names = self._client.get_run(self._theirs).data.metrics
        return {
            name: max(each.step for each in self._client.get_metric_history(self._theirs, name))
            for name in names
        }

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Whatever MLflow, its database or the network raise is Unavailable."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - its families have no root in common
            what = (str(error).splitlines() or [type(error).__name__])[0]
            raise Unavailable(
                f"MLflow at {self._target} did not take scalars: {what}",
                "Look at the setting `mlflow` and at the server; the run itself has all.",
                target=self._target,
            ) from None


def shown(name: str) -> str:
    """A name as MLflow takes it.

    >>> shown("loss[0]")
    'loss_0_'
    """
    return _REFUSED.sub("_", name)


def _experiment() -> str:
    return os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)


def _uri(target: str) -> str:
    if "://" in target:
        return target
    folder = Path(target).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


def _artifacts(target: str) -> str | None:
    """Of a folder its own; a server has its own idea of where they lie."""
    if "://" in target:
        return None
    return (Path(target).expanduser().absolute() / "artifacts").as_uri()


def _import() -> Any:
    try:
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise MissingExtra(
            "forwarding to MLflow needs the package mlflow, or mlflow-skinny",
            'Install it: pip install "penstock[mlflow]".',
            extra="mlflow",
        ) from None
    return MlflowClient
