"""How busy a rank's GPU is, and how full its memory, told once a second beside the step.

By NVML, where its package (nvidia-ml-py, the extra `gpu`) is installed: it asks the driver, not the
device, and waits for nothing that is queued there. Without it, or without a GPU, nothing is told.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

_EVERY = 1.0  # seconds


class Gauge:
    """One rank's. Owns a thread from `begin` to `close`, where there is something to ask.

    step  of the loop, as it is now
    """

    def __init__(
        self, device: torch.device, emitter: Any, step: Callable[[], int], every: float = _EVERY
    ) -> None:
        self._device, self._emitter, self._step, self._every = device, emitter, step, every
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """The loop begins. Never raises: a gauge that cannot be read is none."""
        if self._thread is None and self._device.type == "cuda" and (ask := asking(self._device)):
            self._over.clear()
            self._thread = threading.Thread(target=self._tell, args=(ask,), name="gpu", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(self._every)  # a driver that hangs does not hold the loop
            self._thread = None

    def _tell(self, ask: Callable[[], dict[str, float] | None]) -> None:
        while not self._over.wait(self._every):
            if (found := ask()) is None:
                return
            self._emitter.scalars(self._step(), found)


def asking(device: torch.device) -> Callable[[], dict[str, float] | None] | None:
    """A function that gives utilisation (0..1, of the last sample of the driver) and bytes in use,
    by all processes; None from it: no more. None instead of it: nobody can be asked."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except nvml.NVMLError:
        return None

    def ask() -> dict[str, float] | None:
        with suppress(nvml.NVMLError):
            return {
                "penstock/gpu_utilization": nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
                "penstock/gpu_memory_bytes": float(nvml.nvmlDeviceGetMemoryInfo(handle).used),
            }
        return None

    return ask
