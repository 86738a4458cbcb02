"""What devices this machine has, as far as this process may use them: GPUs by UUID, cores.

GPUs are listed by NVML (the package nvidia-ml-py) or else by the driver's files below /proc; torch
is not asked, because that would be an import of seconds and a context on the GPU. The setting
`devices` names them where neither can list them, and in tests.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.base.errors import BadInput

_DRIVER = Path("/proc/driver/nvidia/gpus")
_UUID = re.compile(r"GPU UUID:\s*(\S+)")


@dataclass(frozen=True, slots=True)
class Devices:
    """gpus   UUIDs, or the names that the setting gives, in order
    cores  numbers of those that this process may run on
    named  whether the setting names the GPUs; torch may then see none
    """

    gpus: tuple[str, ...]
    cores: tuple[str, ...]
    named: bool = False

    def of(self, kind: str) -> list[str]:
        """Of "gpu" or "core", as claims name them: "gpu/GPU-a"."""
        return [f"{kind}/{each}" for each in (self.gpus if kind == "gpu" else self.cores)]


def found_here(named: str | None, environment: Mapping[str, str] | None = None) -> Devices:
    """Those of this machine that CUDA_VISIBLE_DEVICES leaves, and the cores of this process.

    named  the setting `devices`. Raises BadInput where it does not hold
    """
    environment = os.environ if environment is None else environment
    cores = tuple(str(each) for each in sorted(os.sched_getaffinity(0)))
    gpus = _parse(named) if named is not None else list_gpus()
    return Devices(tuple(visible(gpus, environment)), cores, named is not None)


def _parse(text: str) -> list[str]:
    kind, colon, names = text.partition(":")
    found = [each.strip() for each in names.split(",") if each.strip()]
    if (kind, colon) != ("gpu", ":") or len(set(found)) != len(found):
        raise BadInput(
            f'the setting devices="{text}" does not hold',
            'Name each GPU once: devices = "gpu:GPU-a,GPU-b"; "gpu:" says that there is none.',
        )
    return found


def list_gpus() -> list[str]:
    """UUIDs in the order of the bus; empty where no driver answers."""
    try:
        pynvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return _from_driver()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return _from_driver()
    try:
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        found = [pynvml.nvmlDeviceGetUUID(each) for each in handles]
        return [each.decode() if isinstance(each, bytes) else str(each) for each in found]
    except pynvml.NVMLError:
        return _from_driver()
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _from_driver() -> list[str]:
    found = []
    for folder in sorted(_DRIVER.glob("*")):
        with suppress(OSError):
            match = _UUID.search((folder / "information").read_text())
            if match is not None and "?" not in match[1]:  # before its first use it is not known
                found.append(match[1])
    return found


def visible(gpus: list[str], environment: Mapping[str, str]) -> list[str]:
    """What CUDA_VISIBLE_DEVICES leaves of them. As CUDA reads it: numbers, UUIDs or beginnings of
    them, up to the first that names nothing; a part of a GPU (MIG) stands for itself."""
    said = environment.get("CUDA_VISIBLE_DEVICES")
    if said is None:
        return gpus
    left: list[str] = []
    for token in (each.strip() for each in said.split(",")):
        if token.isdigit():
            matching = gpus[int(token) : int(token) + 1]
        elif token.startswith("MIG-"):
            matching = [token]
        else:
            matching = [each for each in gpus if token and each.startswith(token)]
        if len(matching) != 1 or matching[0] in left:
            break
        left += matching
    return left
