"""What a checkpoint holds: the objects that the user named, by their state dictionaries."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from penstock.base.errors import BadInput, Damaged
from penstock.checkpoints import Sharding, is_distributed, sharding_of, shardings_in
from penstock.training import naming
from penstock.training.differences import between, said
from penstock.training.group import unwrap

if TYPE_CHECKING:
    from penstock.checkpoints.arrays import Entry

_ROOT = "shared.tracked"  # where the tracked objects are in a checkpoint's tree


def _plain(value: Any) -> Any:
    return unwrap(value) if isinstance(value, torch.nn.Module) else value


def _state_of(plain: Any) -> Any:
    if isinstance(plain, torch.nn.Module):
        return naming.state_of(plain)
    return plain.state_dict() if hasattr(plain, "state_dict") else plain.state()


class Tracked:
    """name -> object. Each has `state_dict`/`load_state_dict`, or `state`/`load_state`."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self._names: dict[int, str] = {}  # id -> the first name of what is tracked

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
        self._names = {id(_plain(each)): name for name, each in reversed(self.objects.items())}

    def named_models(self) -> dict[str, torch.nn.Module]:
        """The users' own modules by the names they are tracked under."""
        modules = {n: m for n, m in self.objects.items() if isinstance(m, torch.nn.Module)}
        return {name: unwrap(module) for name, module in modules.items()}

    def models(self) -> list[torch.nn.Module]:
        return [each for each in self.objects.values() if isinstance(each, torch.nn.Module)]

    def optimizers(self) -> list[torch.optim.Optimizer]:
        return [each for each in self.objects.values() if isinstance(each, torch.optim.Optimizer)]

    def holds(self, value: Any) -> bool:
        return self.name_of(value) is not None

    def name_of(self, value: Any) -> str | None:
        """The name that an object is tracked under; None for one that is not."""
        return self._names.get(id(_plain(value)))

    def state(self) -> dict[str, Any]:
        """A tree that is equal on all ranks."""
        found = {}
        for name, value in self.objects.items():
            plain = _plain(value)
            found[name] = _state_of(plain)
        return found

    def onto(self) -> Callable[[Entry], Sharding | None]:
        """For `checkpoints.load`: how the tensors of each object lie over the ranks as it is now.

        Of an optimiser that has not stepped yet: whatever it will keep for a parameter, in the
        parameter's own shape, lies as the parameter does.
        """
        known: dict[str, Sharding] = {}
        kept: dict[str, Sharding] = {}  # what an optimiser keeps for a parameter begins so
        for name, value in self.objects.items():
            plain, path = _plain(value), f"{_ROOT}.{name}"
            state = _state_of(plain)
            known |= shardings_in(state, path)
            groups = getattr(plain, "param_groups", [])
            parameters = [each for group in groups for each in group["params"]]
            for number, parameter in enumerate(parameters):
                if is_distributed(parameter):
                    at = f"{path}.state.{number}"
                    kept[at] = sharding_of(parameter, at)

        def find(entry: Entry) -> Sharding | None:
            found = known.get(entry.name)
            if found is None and (at := ".".join(entry.name.split(".")[:5])) in kept:
                like = kept[at]
                found = like if like.shape == entry.shape else None
            return found

        return find

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
            if isinstance(value, torch.nn.Module):
                naming.load(value, state)
            elif hasattr(value, "load_state_dict"):
                value.load_state_dict(state)
            else:
                value.load_state(state)
        except (RuntimeError, ValueError, KeyError) as error:
            if isinstance(error, Damaged):
                raise
            lines = between(name, value, state) if isinstance(value, torch.nn.Module) else []
            raise BadInput(
                f"the checkpoint of step {step} does not fit {name}: "
                f"{said(lines) if lines else error}",
                "The model or optimiser changed: train under another name, or with fresh=True.",
                name=name,
                step=step,
                differences=lines,
            ) from None
