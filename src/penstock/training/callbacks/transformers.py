"""Hugging Face Trainer: a callback that makes `trainer.train` a durable run.

The Trainer resumes from a folder of files of its own, whose name it is given before it begins. So
`checkpoint()` lays the run's state out as such a folder, in a temporary place, and the Trainer
reads it by its own means. What is stored is our checkpoint, without pickle.

A step is told when the next one begins: by then logging and evaluation are done and the next batch
is fetched, and there the Trainer puts random states back when it resumes. After an epoch's last
step that is before the next epoch's first batch.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from penstock.base.errors import BadInput, MissingExtra
from penstock.jobs.stores import open_stores
from penstock.training import randomness
from penstock.training.attached import AttachedRun, attach
from penstock.training.callbacks.ticks import Ticks
from penstock.training.deciding import OnChange


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError:
        raise MissingExtra(
            "PenstockCallback needs transformers, which is not installed",
            "pip install transformers accelerate",
        ) from None


_Callback: Any = _transformers().TrainerCallback


class PenstockCallback(_Callback):  # type: ignore[misc]
    """A run for `trainer.train(resume_from_checkpoint=callback.checkpoint())`.

    name, config, fresh, on_change, checkpoint_every, seed  as `ps.attach` has them
    run       from `checkpoint()` on: `.global_step`, `.finished`
    """

    def __init__(
        self,
        name: str,
        config: Any = None,
        *,
        fresh: bool = False,
        on_change: OnChange = "continue",
        checkpoint_every: int | str = "auto",
        seed: int = 0,
    ) -> None:
        self.run: AttachedRun | None = None
        self._name, self._config = name, config
        self._options: dict[str, Any] = {
            "fresh": fresh,
            "on_change": on_change,
            "checkpoint_every": checkpoint_every,
            "seed": seed,
        }
        self._ticks = Ticks()
        self._steps: Iterator[Any] = iter(())
        self._state = TrainerState()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def checkpoint(self) -> str | None:
        """Begin the run, or go on with it: the folder to resume from, None at the beginning.

        Raises what `ps.attach` raises. Random numbers stay as the Trainer seeded them.
        """
        with randomness.untouched():
            stores = open_stores()
            self.run = attach(stores, self._name, self._config, say=_say, **self._options)
            self.run.closes(stores)
            self.run.track(trainer=self._state)
            self._steps = self.run.steps(self._ticks)
            next(self._steps, None)  # restores
            if self._state.loaded is None:
                return None
            self._folder = tempfile.TemporaryDirectory(prefix="penstock-resume-")
            lay_out(Path(self._folder.name), self._state.loaded, randomness.capture())
        self._state.loaded = None
        return self._folder.name

    # -- the Trainer's events -------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        told = -1 if self.run is None else self.run.global_step
        if state.global_step != told:
            raise BadInput(
                f"the Trainer begins at step {state.global_step}, and the run at step {told}",
                "Call trainer.train(resume_from_checkpoint=callback.checkpoint()).",
            )
        self._state.begin(state, parts)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        self._boundary(state)

    def on_step_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        self._boundary(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **parts: Any) -> None:
        if self.run is not None and not self.run.finished and not self._ticks.over:
            numbers = {k: v for k, v in (logs or {}).items() if isinstance(v, int | float)}
            self.run.log(numbers)

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        assert self.run is not None
        self._ticks.over = True
        self._boundary(state)
        self.run.end()
        if self._folder is not None:
            self._folder.cleanup()

    def _boundary(self, state: Any) -> None:
        """All of a step is done. Raises RunStopped when the run is to stop."""
        assert self.run is not None
        if not self.run.finished and state.global_step > self.run.global_step:
            next(self._steps, None)


class TrainerState:
    """What the Trainer would save; random states are kept by the run itself."""

    def __init__(self) -> None:
        self.loaded: dict[str, Any] | None = None
        self._state: Any = None
        self._parts: dict[str, Any] = {}

    def begin(self, state: Any, parts: dict[str, Any]) -> None:
        self._state = state
        self._parts = {key: parts[key] for key in ("model", "optimizer", "lr_scheduler")}

    def state_dict(self) -> dict[str, Any]:
        if self._state is None:
            return {}  # only looked at for how tensors are distributed
        states = {key: part.state_dict() for key, part in self._parts.items()}
        # the Trainer hands its callbacks no accelerator; the optimizer of Accelerate has the scaler
        scaler = getattr(self._parts["optimizer"], "scaler", None)
        if scaler is not None:
            states["scaler"] = scaler.state_dict()
        return {**states, "progress": json.dumps(dataclasses.asdict(self._state))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loaded = state


def lay_out(folder: Path, state: dict[str, Any], random: dict[str, Any]) -> None:
    """The files that the Trainer resumes from. It reads them with `weights_only=True`."""
    version, internal, gauss = random["python"]
    kept = {
        "python": (version, tuple(internal), gauss),
        "numpy": tuple(random["numpy"]),
        "cpu": random["torch"],
    }
    if "cuda" in random:
        kept["cuda"] = random["cuda"]
    torch.save(state["model"], folder / "pytorch_model.bin")
    torch.save(state["optimizer"], folder / "optimizer.pt")
    torch.save(state["lr_scheduler"], folder / "scheduler.pt")
    if "scaler" in state:
        torch.save(state["scaler"], folder / "scaler.pt")
    torch.save(kept, folder / "rng_state.pth")
    (folder / "trainer_state.json").write_text(state["progress"])


def _say(line: str) -> None:
    sys.stderr.write(f"penstock: {line}\n")
    sys.stderr.flush()
