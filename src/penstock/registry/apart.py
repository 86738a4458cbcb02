"""Working on a model without touching it: a copy on the CPU, the generators put back, silence."""

from __future__ import annotations

import copy
import logging
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from penstock.base.errors import BadInput, CannotTravel

if TYPE_CHECKING:
    import torch
    from torch import nn

_NOISY = ("torch", "onnxscript", "onnx_ir", "onnxruntime")


def unwrap(model: Any) -> nn.Module:
    """The user's own module inside DistributedDataParallel and torch.compile."""
    from torch import nn
    from torch.nn.parallel import DataParallel, DistributedDataParallel

    while True:
        if isinstance(model, DistributedDataParallel | DataParallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):  # what torch.compile returns
            model = model._orig_mod
        else:
            break
    if not isinstance(model, nn.Module):
        raise BadInput(
            f"a model is a torch.nn.Module, not {type(model).__name__}",
            "Pass the module that training updates.",
        )
    return model


def copy_to_cpu(model: nn.Module) -> nn.Module:
    """An independent copy on the CPU, in eval mode, without gradients.

    Device memory is not copied: the copy is built around CPU tensors. Tied weights stay tied. What
    torch.compile put around parts of it is left out, and so are hooks (see `dropped_hooks`), except
    torch's own, such as those of weight_norm.
    Raises CannotTravel for sharded weights, and for what Python cannot copy.
    """
    memo: dict[int, Any] = {}
    for name, tensor in _tensors(model):
        if hasattr(tensor, "full_tensor"):
            raise CannotTravel(
                f'weight "{name}" is sharded over ranks',
                "Gather the whole model on one rank and publish that.",
                weight=name,
            )
        memo[id(tensor)] = _on_cpu(tensor)
    for hooks in _hooks(model):
        kept = {key: hook for key, hook in hooks.items() if _is_of_torch(hook)}
        memo[id(hooks)] = type(hooks)(copy.deepcopy(kept, memo))
    compiled = [each for each in model.modules() if "_orig_mod" in each._modules]
    try:
        for each in reversed(compiled):  # what torch.compile put around a part of it is left out
            memo[id(each)] = copy.deepcopy(each._orig_mod, memo)
        copied = copy.deepcopy(model, memo)
    except Exception as error:
        raise CannotTravel(
            f"{type(model).__name__} cannot be copied: {error}",
            "Keep only modules, tensors and plain values as attributes of the model.",
        ) from error
    return copied.eval().requires_grad_(False)


def dropped_hooks(model: nn.Module) -> int:
    """How many hooks a copy leaves out. They belong to whoever watches training; one that changes
    what the model computes would be missed, so a package tells of them."""
    return sum(not _is_of_torch(hook) for hooks in _hooks(model) for hook in hooks.values())


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters, buffers, and tensors that are mere attributes, which deepcopy may refuse."""
    import torch

    yield from model.named_parameters()
    yield from model.named_buffers()
    for prefix, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor):
                yield f"{prefix}.{name}".lstrip("."), value


def _on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    fresh = tensor.detach().to("cpu", copy=True)
    is_parameter = isinstance(tensor, torch.nn.Parameter)
    return torch.nn.Parameter(fresh, requires_grad=False) if is_parameter else fresh


def _hooks(model: nn.Module) -> Iterator[dict[int, Any]]:
    for module in model.modules():
        for name, value in vars(module).items():
            if name.endswith("_hooks") and isinstance(value, dict):
                yield value


def _is_of_torch(hook: Any) -> bool:
    kind = hook if hasattr(hook, "__qualname__") else type(hook)
    return str(getattr(kind, "__module__", "")).partition(".")[0] == "torch"


@contextmanager
def generators_kept() -> Iterator[None]:
    """Put back the states of Python's, NumPy's and torch's random generators at the end."""
    import numpy as np
    import torch

    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and log lines of the converters off the user's terminal.

    What matters of them goes into the package's notes. Loggers that appear meanwhile are covered,
    since they inherit; those that exist and have a level of their own are raised one by one.
    """
    loggers = [
        logging.getLogger(name)
        for name in list(logging.root.manager.loggerDict)
        if name.split(".", 1)[0] in _NOISY
    ] + [logging.getLogger(name) for name in _NOISY]
    before = {each: each.level for each in loggers}
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for each in before:
            each.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for each, level in before.items():
                each.setLevel(level)


@contextmanager
def plain_mode() -> Iterator[None]:
    """Neither autocast nor inference mode of the caller reaches what runs inside."""
    import torch

    with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
        yield


def first_line(error: BaseException, limit: int = 300) -> str:
    """The first line of an error that says something, for a note."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def installed(*modules: str) -> list[str]:
    """Those of `modules` that cannot be imported."""
    missing = []
    for name in modules:
        try:
            __import__(name)
        except ImportError:
            missing.append(name)
    return missing


def versions(*modules: str) -> dict[str, str]:
    """Versions of Python and of the modules that are loaded or can be."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": ".".join(str(part) for part in sys.version_info[:3])}
    for name in modules:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
