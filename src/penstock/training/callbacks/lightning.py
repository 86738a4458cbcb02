"""Lightning: `Trainer(callbacks=[PenstockCallback("base")])` makes `trainer.fit` a durable run.

What Lightning would write into a checkpoint of its own (weights, optimisers, schedulers, the
progress of its loops, callbacks, loaders) goes into ours, at the boundary of two optimiser steps:
when the next batch is asked for, after validation and all hooks. It is put back by Lightning's own
means before its first step. Uses Lightning's checkpoint connector, which it counts as internal: the
range of versions in the extra `interop` is the tested one.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

from penstock.base.errors import BadInput, MissingExtra
from penstock.jobs.stores import open_stores
from penstock.training.attached import AttachedRun, attach
from penstock.training.callbacks.loader import Resumable
from penstock.training.callbacks.ticks import Ticks
from penstock.training.deciding import OnChange

_HYPERPARAMETERS = ("hyper_parameters", "hparams_name", "hparams_type")  # code gives them
_NAMES = ("lightning.pytorch", "pytorch_lightning")


def _lightning() -> Any:
    """Of the two names that Lightning has the one that is imported already."""
    for name in sorted(_NAMES, key=lambda each: each not in sys.modules):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise MissingExtra(
        "PenstockCallback needs Lightning, which is not installed", "pip install pytorch-lightning"
    )


_Callback: Any = _lightning().Callback


class PenstockCallback(_Callback):  # type: ignore[misc]
    """A run for `trainer.fit`, as `ps.attach` gives it.

    name, config, fresh, on_change, checkpoint_every, seed  as `ps.attach` has them
    run       from the beginning of `fit` on: `.global_step`, `.log`, `.finished`

    The training loader must keep its position: `Resumable(DataLoader(…))`. A run that had finished
    gives the weights, and no step.
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
        super().__init__()
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
        self._stepped = 0  # Lightning's own count of optimiser steps, at the last boundary

    # -- Lightning's hooks ----------------------------------------------------------------------

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        stores = open_stores()
        self.run = attach(stores, self._name, self._config, say=_say, **self._options)
        self.run.closes(stores)
        state = TrainerState(trainer)
        self.run.track(trainer=state)
        self._steps = self.run.steps(self._ticks)
        next(self._steps, None)  # restores
        state.restore()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        loaders = trainer.train_dataloader
        if not isinstance(loaders, Resumable):
            raise BadInput(
                f"the training loader is a {type(loaders).__name__}, whose position cannot be kept",
                "Pass Resumable(DataLoader(…)) of penstock.training.callbacks.loader.",
            )
        self._stepped = trainer.global_step
        loaders.before_next = lambda: self._boundary(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        assert self.run is not None
        self._ticks.over = True
        self._boundary(trainer)
        self.run.end()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        if self.run is not None:
            self.run.end()  # where there was nothing to train any more

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self.run is not None:
            self.run.__exit__(type(exception), exception, None)

    # -- inside ---------------------------------------------------------------------------------

    def _boundary(self, trainer: Any) -> None:
        """All of a batch is done; where gradients are still being added up, the step goes on.
        Raises RunStopped when the run is to stop."""
        if self.run is None or trainer.global_step == self._stepped:
            return
        self._stepped = trainer.global_step
        if (self.run.global_step + 1) % trainer.log_every_n_steps == 0:
            self.run.log(dict(trainer.logged_metrics))
        next(self._steps, None)


class TrainerState:
    """What Lightning would save, and its way back."""

    def __init__(self, trainer: Any) -> None:
        self._connector = trainer._checkpoint_connector
        self._loaded: dict[str, Any] | None = None
        self._begun = False

    def state_dict(self) -> dict[str, Any]:
        if not self._begun:
            return {}  # only looked at for how tensors are distributed
        found: dict[str, Any] = self._connector.dump_checkpoint(weights_only=False)
        return {key: value for key, value in found.items() if key not in _HYPERPARAMETERS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._loaded = state

    def restore(self) -> None:
        """Model and callbacks now; Lightning puts the rest back itself as soon as it goes on."""
        self._begun = True
        if self._loaded is None:
            return
        self._connector._loaded_checkpoint = self._loaded
        self._connector.restore_datamodule()
        self._connector.restore_model()
        self._connector.restore_callbacks()
        self._loaded = None


def _say(line: str) -> None:
    sys.stderr.write(f"penstock: {line}\n")
    sys.stderr.flush()
