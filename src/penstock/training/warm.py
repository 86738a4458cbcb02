"""The weights that a new run begins with: read, compared with its models, and put in. In ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from penstock.base.errors import BadInput, Damaged, PenstockError
from penstock.blobs import Blobs
from penstock.checkpoints import is_distributed, load, read_manifest, sharding_of
from penstock.registry import weights as weights_of
from penstock.training import naming
from penstock.training.differences import between, said, tensors

if TYPE_CHECKING:
    from penstock.checkpoints.reader import Onto

States = Mapping[str, Mapping[str, Any]]  # name of a tracked object -> its state dictionary


def text_of(initial: Mapping[str, Any]) -> str:
    """What `init_from` resolved to: "base@2000", "digits-cnn@3"."""
    if initial["kind"] == "model":
        return str(initial["reference"])
    return f"{initial['name']}@{initial['step']}"


def read(blobs: Blobs, initial: Mapping[str, Any], onto: Onto | None = None) -> States:
    """name -> state; of a model version the one state has the name "".

    onto  as `checkpoints.load` takes it: of sharded models only this rank's parts are read
    Raises Damaged: with `init_from` there is nothing else to fall back to.
    """
    try:
        if initial["kind"] == "model":
            return {"": weights_of(blobs, initial["package"])}
        manifest = read_manifest(blobs, initial["manifest"])
        tracked: States = load(blobs, manifest, 0, 1, onto).shared["tracked"]
        return tracked
    except Damaged as error:  # without its facts, by which a run's own checkpoint is passed over
        raise Damaged(
            f"init_from={text_of(initial)} cannot be read: {error.what}",
            "Name another checkpoint or version.",
        ) from None


def put(models: Mapping[str, torch.nn.Module], states: States, initial: Mapping[str, Any]) -> int:
    """Load weights and buffers into the models; how many tensors. dtypes are those of the models.

    Raises BadInput, naming what does not fit, before any of them is changed.
    """
    if not models:
        raise _misfit(initial, "this run tracks no model")
    chosen = {name: _state_for(name, models, states, initial) for name in models}
    wrong = [line for name, model in models.items() for line in between(name, model, chosen[name])]
    if wrong:
        raise _misfit(initial, said(wrong), differences=wrong)
    for name, model in models.items():
        state = _as_sharded(model, chosen[name])
        naming.load(model, state, strict=False)  # compared above; extra state may be less
    return sum(len(tensors(naming.state_of(model))) for model in models.values())


def _as_sharded(model: torch.nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """The state, its whole tensors put into shards where the model's are."""
    mine = naming.state_of(model)
    return {
        name: sharding_of(mine[name], name).part_of(value)
        if is_distributed(mine.get(name)) and not is_distributed(value)
        else value
        for name, value in state.items()
    }


def _state_for(
    name: str,
    models: Mapping[str, torch.nn.Module],
    states: States,
    initial: Mapping[str, Any],
) -> Mapping[str, Any]:
    if initial["kind"] == "model":
        if len(models) > 1:
            raise _misfit(
                initial, f"it is one model, and this run tracks {len(models)}: {', '.join(models)}"
            )
        return states[""]
    if name not in states:
        raise _misfit(initial, f'it tracks no "{name}", only {", ".join(states)}')
    return states[name]


def _misfit(initial: Mapping[str, Any], why: str, **facts: Any) -> PenstockError:
    return BadInput(
        f"init_from={text_of(initial)} does not fit: {why}",
        "Build the same model, name another run or version, or leave init_from out.",
        **facts,
    )
