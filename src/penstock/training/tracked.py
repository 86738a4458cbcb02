"""What a checkpoint holds: the objects that the user named, by their state dictionaries."""

from __future__ import annotations

from typing import Any

import torch

from penstock.base.errors import BadInput, Damaged
from penstock.training.group import unwrap


def _plain(value: Any) -> Any:
    return unwrap(value) if isinstance(value, torch.nn.Module) else value


class Tracked:
    """name -> object. Each has `state_dict`/`load_state_dict`, or `state`/`load_state`."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}

    def add(self, **objects: Any) -> None:
        """Raises BadInput for an object without a state."""
        for name, value in objects.items():
            if not hasattr(_plain(value), "state_dict") and not hasattr(value, "state"):
                raise BadInput(
                    f"run.track({name}=…) got a {type(value).__name__}, which has no state_dict()",
                    "Track modules, optimisers, schedulers, loaders, or give it "
                    "state_dict() and load_state_dict().",
                    name=name,
                )
            self.objects[name] = value

    def named_models(self) -> dict[str, torch.nn.Module]:
        """The users' own modules by the names they are tracked under."""
        modules = {n: m for n, m in self.objects.items() if isinstance(m, torch.nn.Module)}
        return {name: unwrap(module) for name, module in modules.items()}

    def models(self) -> list[torch.nn.Module]:
        return [each for each in self.objects.values() if isinstance(each, torch.nn.Module)]

    def optimizers(self) -> list[torch.optim.Optimizer]:
        return [each for each in self.objects.values() if isinstance(each, torch.optim.Optimizer)]

    def holds(self, value: Any) -> bool:
        return any(_plain(each) is _plain(value) for each in self.objects.values())

    def name_of(self, value: Any) -> str:
        """The name that an object is tracked under. Raises StopIteration for one that is not."""
        return next(name for name, each in self.objects.items() if _plain(each) is _plain(value))

    def state(self) -> dict[str, Any]:
        """A tree that is equal on all ranks."""
        found = {}
        for name, value in self.objects.items():
            plain = _plain(value)
            found[name] = plain.state_dict() if hasattr(plain, "state_dict") else plain.state()
        return found

    def load(self, states: dict[str, Any], step: int) -> None:
        """Put a checkpoint's states into the objects. Raises BadInput when they do not fit."""
        missing = sorted(self.objects.keys() - states.keys())
        if missing:
            raise BadInput(
                f"the checkpoint of step {step} has no state for {', '.join(missing)}",
                "The code tracks more than it did when the run began: train under another name, "
                "or with fresh=True.",
                missing=missing,
                found=sorted(states),
            )
        for name, value in self.objects.items():
            self._load_one(name, _plain(value), states[name], step)

    @staticmethod
    def _load_one(name: str, value: Any, state: Any, step: int) -> None:
        try:
            if hasattr(value, "load_state_dict"):
                value.load_state_dict(state)
            else:
                value.load_state(state)
        except (RuntimeError, ValueError, KeyError) as error:
            if isinstance(error, Damaged):
                raise
            raise BadInput(
                f"the checkpoint of step {step} does not fit {name}: {error}",
                "The model or optimiser changed: train under another name, or with fresh=True.",
                name=name,
                step=step,
            ) from None
