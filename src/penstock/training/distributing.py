"""How a model lies over the ranks: whole on each of them (DDP, or by the user's own hand), or in
shards (FSDP2)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
import torch.distributed as dist

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean
from penstock.training import group
from penstock.training.gathering import Skeleton

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

Strategy = Literal["auto", "plain", "ddp", "fsdp"]
Wrap = type | Collection[type] | Callable[[torch.nn.Module], bool]


class Distribution:
    """One rank's: how each of its models lies over the ranks.

    differ  whether ranks may have other gradients, or other parts of them
    """

    def __init__(self, device: torch.device, world_size: int) -> None:
        self.differ = False
        self._device, self._world_size = device, world_size
        self._skeletons: dict[int, Skeleton] = {}  # of models that are put into shards

    def distribute(
        self,
        model: torch.nn.Module,
        strategy: Strategy,
        mesh: DeviceMesh | None,
        options: dict[str, Any],
    ) -> torch.nn.Module:
        """As the function below."""
        if strategy == "fsdp" or mesh is not None:
            self._skeletons[id(model)] = Skeleton(model)
        self.differ |= strategy == "plain" or id(model) in self._skeletons
        return distribute(model, self._device, self._world_size, strategy, mesh, **options)

    def whole(self, model: torch.nn.Module, keep: bool) -> torch.nn.Module:
        """The user's own model, whole; where it lies in shards, a collective call, and `keep` says
        whether this rank wants it. Raises CannotTravel."""
        plain = group.unwrap(model)
        skeleton = self._skeletons.get(id(plain))
        return plain if skeleton is None else skeleton.whole(plain, keep)


def distribute(
    model: torch.nn.Module,
    device: torch.device,
    world_size: int,
    strategy: Strategy = "auto",
    mesh: DeviceMesh | None = None,
    **options: Any,
) -> torch.nn.Module:
    """The model on the device, and in what makes its gradients those of all ranks.

    strategy  auto: DDP where there are several ranks, FSDP where a mesh is given
              ddp: options are those of DistributedDataParallel
              fsdp: options are `wrap` (see `chosen`) and those of `fully_shard`
              plain: no wrapper; the caller does the communication
    mesh      for FSDP, the caller's own; default: all ranks in a row
    Raises BadInput.
    """
    if strategy not in get_args(Strategy):
        raise BadInput(f'"{strategy}" is no strategy', did_you_mean(strategy, get_args(Strategy)))
    if strategy == "auto":
        strategy = "ddp" if mesh is None else "fsdp"
    if mesh is not None and strategy != "fsdp":
        raise BadInput(
            f'strategy="{strategy}" has no use for a mesh', 'Take strategy="fsdp", or no mesh.'
        )
    if strategy == "plain" and options:
        raise BadInput(f'strategy="plain" takes no {", ".join(options)}', "Leave them out.")
    if strategy == "fsdp":
        return _in_shards(model, device, world_size, mesh, **options)
    if strategy == "plain":
        return model.to(device)
    return group.distribute(model, device, world_size, **options)


def _in_shards(
    model: torch.nn.Module,
    device: torch.device,
    world_size: int,
    mesh: DeviceMesh | None,
    wrap: Wrap | None = None,
    **options: Any,
) -> torch.nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if group.is_compiled(model):
        raise BadInput(
            "a model that torch.compile returned cannot be put into shards",
            'Compile afterwards: torch.compile(run.distribute(model, "fsdp")).',
        )
    group.at_least_alone(world_size)
    if not any(tensor.is_meta for tensor in model.parameters()):
        model = model.to(device)
        _begin_equal(model, world_size)
    mesh = init_device_mesh(device.type, (world_size,)) if mesh is None else mesh
    for module in reversed(list(chosen(model, wrap))):  # inner ones first
        fully_shard(module, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)
    if mesh.size() == world_size > 1:
        model.register_forward_pre_hook(_buffers_of_rank_0)
    return model


def chosen(model: torch.nn.Module, wrap: Wrap | None) -> Iterator[torch.nn.Module]:
    """The modules within a model, outer ones first, that are gathered and let go as one.

    wrap  a class, several, or a function that says of a module whether it is one; default: the
          repeated blocks, which are children of one class in a list or sequence, twice or more
    Raises BadInput when there is none, though they were named.
    """
    if wrap is None:
        yield from _blocks(model)
        return
    if isinstance(wrap, type):
        wrap = (wrap,)
    kinds = None if callable(wrap) else tuple(wrap)
    found = [
        module
        for module in model.modules()
        if module is not model and (wrap(module) if kinds is None else isinstance(module, kinds))  # type: ignore[operator]
    ]
    if not found:
        raise BadInput(
            f"wrap={wrap} chooses no module of {type(model).__name__}",
            "Name classes of modules that are inside it, or leave wrap out.",
        )
    yield from found


def _blocks(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    children = list(module.children())
    repeated: list[torch.nn.Module] = []
    if isinstance(module, torch.nn.ModuleList | torch.nn.Sequential):
        kinds = [type(child) for child in children]
        repeated = [
            child
            for child in children
            if kinds.count(type(child)) > 1 and any(True for _ in child.parameters())
        ]
    yield from repeated
    for child in children:
        if not any(child is each for each in repeated):
            yield from _blocks(child)


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether its parameters, or some of them, lie over the ranks in shards."""
    from penstock.checkpoints import is_distributed

    return any(is_distributed(each) for each in model.parameters())


def synchronising(model: torch.nn.Module, wanted: bool) -> None:
    """Whether the ranks exchange gradients in the backward passes that come."""
    if isinstance(model, torch.nn.parallel.DistributedDataParallel):
        model.require_backward_grad_sync = wanted
    elif (switch := getattr(model, "set_requires_gradient_sync", None)) is not None:
        switch(wanted)


def check_parameters(models: Iterable[torch.nn.Module], optimizers: Iterable[Any]) -> None:
    """Raises BadInput for an optimiser that was made before its model was put into shards: it
    would go on changing tensors that no model has any more."""
    models = list(models)
    if not any(is_sharded(model) for model in models):
        return
    known = {id(each) for model in models for each in model.parameters()}
    for optimizer in optimizers:
        parameters = [each for part in optimizer.param_groups for each in part["params"]]
        if parameters and not any(id(each) in known for each in parameters):
            raise BadInput(
                f"{type(optimizer).__name__} has no parameter of the sharded model",
                "Make the optimiser after run.distribute, from what it returned.",
            )


def _begin_equal(model: torch.nn.Module, world_size: int) -> None:
    """Rank 0's weights and buffers for all, as DDP does it."""
    from penstock.checkpoints import is_distributed

    if world_size > 1:
        with torch.no_grad():
            for tensor in [*model.parameters(), *model.buffers()]:
                if not is_distributed(tensor):
                    dist.broadcast(tensor, 0)


def _buffers_of_rank_0(model: torch.nn.Module, _: Any) -> None:
    """Before a forward pass in training: as DDP does it, so that what a buffer holds depends on no
    checkpoint that was or was not made."""
    if model.training:
        group.equal_buffers([model], dist.get_world_size())
