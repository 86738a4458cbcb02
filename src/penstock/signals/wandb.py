"""Scalars to Weights & Biases: one way, as the run goes.

A run of ours is the run of theirs with the same id. They take rows by rising steps, and never again
one that they had: so a row is given once all of it is settled, in the order of steps, and a new
forwarder begins behind the last row that is there. Where that is, the server says; with
WANDB_MODE=offline the files are read.

Their library works by a process of its own, `wandb-core`, which looks after whoever started it and
ends with it, however that ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any

from penstock.base.errors import MissingExtra, Unavailable
from penstock.signals import wandb_files
from penstock.signals.settling import Settling


class Forwarder:
    """Forwards one run. One forwarder per run at a time, and per process.

    folder  of the run's segments; may not exist yet
    target  PROJECT, or ENTITY/PROJECT
    run_id  ours, and theirs; `name` is how W&B shows it
    config  of the run: JSON-able

    Their files are below the folder that WANDB_DIR names, else in the one above the segments.
    Raises MissingExtra (no `wandb`), Unavailable (no account, no answer, no place to write).
    """

    def __init__(
        self, folder: Path, target: str, run_id: str, name: str, config: dict[str, Any]
    ) -> None:
        os.environ.pop("WANDB_SERVICE", None)  # a script's own, which ends with it
        self._wandb = _import()
        self._target = target
        entity, _, project = target.rpartition("/")
        place = Path(os.environ.get("WANDB_DIR") or folder.parent)
        with self._errors():
            place.mkdir(parents=True, exist_ok=True)
            done = wandb_files.last_step(place, run_id)
            self._run = self._wandb.init(
                id=run_id,
                name=name,
                project=project,
                entity=entity or None,
                config=config,
                dir=str(place),
                resume="allow",
                settings=_settings(self._wandb),
            )
            after = done if self._run.offline else self._run.step - 1
            self._settling = Settling(folder, {}, floor=after)

    def poll(self, final: bool = False) -> int:
        """Hand over the rows that have settled since; returns how many values. `final`: all.

        After Unavailable this forwarder is done with: another one begins from what arrived.
        """
        due = self._settling.take(final, in_order=True)
        for step, row in groupby(due, lambda each: each.step):
            told = list(row)
            values = {each.name: each.value for each in told}
            with self._errors():
                at = max(each.at for each in told)
                self._run.log({**values, "_timestamp": at}, step=step, commit=True)
        return len(due)

    def end(self, finished: bool) -> None:
        """Say how it ended, and wait until all is written. Not finished, it may go on."""
        with self._errors():
            self._run.finish(exit_code=0 if finished else 1)

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """After an error the next forwarder of this process needs a service of its own."""
        if error is not None:
            with self._errors():
                self._wandb.teardown(exit_code=1)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Whatever W&B, the disk or the network raise is Unavailable."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - its families have no root in common
            what = (str(error).splitlines() or [type(error).__name__])[0]
            raise Unavailable(
                f"W&B did not take scalars for {self._target}: {what}",
                "Look at the setting `wandb`, log in (`wandb login`) or set WANDB_MODE=offline; "
                "the run itself has all.",
                target=self._target,
            ) from None


def _settings(wandb: Any) -> Any:
    """Nothing of the machine or the code: that is the run's, and this process is none of it."""
    return wandb.Settings(
        console="off",
        silent=True,
        disable_git=True,
        save_code=False,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
    )


def _import() -> Any:
    try:
        import wandb
    except ImportError:
        raise MissingExtra(
            "forwarding to Weights & Biases needs the package wandb",
            'Install it: pip install "penstock[wandb]".',
            extra="wandb",
        ) from None
    return wandb
