"""How busy a GPU is: told beside the steps, from NVML; on CPUs from a stand-in for it."""

import sys
import time
from types import SimpleNamespace

import pytest
import torch
from tests.gpu.training import on

from penstock.training.gauge import Gauge, asking

pytestmark = pytest.mark.torch
UUID = "5f2c0000-0000-0000-0000-000000000000"


class NVMLError(Exception):
    pass


class Heard:
    def __init__(self):
        self.told = []

    def scalars(self, step, values):
        self.told.append((step, values))


def stand_in(failing=False):
    def handle(uuid):
        assert uuid == f"GPU-{UUID}"
        if failing:
            raise NVMLError("no such GPU")
        return 7

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=handle,
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=25, memory=1),
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=3_000),
    )


@pytest.fixture
def nvml(device, monkeypatch):
    """The real one on a GPU."""
    if device == "cpu":
        monkeypatch.setitem(sys.modules, "pynvml", stand_in())
        properties = SimpleNamespace(uuid=UUID)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    else:
        pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
        held = torch.ones(1 << 28, device="cuda")
        yield held
        return
    yield None


def gauge(heard):
    return Gauge(torch.device("cuda", 0), heard, lambda: 5, every=0.01)


@on()
def test_utilisation_and_memory_are_told_until_the_loop_is_over(device, nvml, figure):
    heard = Heard()
    made = gauge(heard)
    made.begin()
    deadline = time.monotonic() + 20
    while len(heard.told) < 3:
        assert time.monotonic() < deadline
        if nvml is not None:
            nvml @ nvml
        time.sleep(0.01)
    made.close()
    count = len(heard.told)
    time.sleep(0.05)
    assert len(heard.told) == count
    step, values = heard.told[-1]
    assert step == 5 and 0 <= values["penstock/gpu_utilization"] <= 1
    if device == "cpu":
        expected = {"penstock/gpu_utilization": 0.25, "penstock/gpu_memory_bytes": 3_000.0}
        assert values == expected
    else:
        assert values["penstock/gpu_memory_bytes"] > 1 << 30
        used = values["penstock/gpu_memory_bytes"] / 1e9
        figure("NVML", "utilisation", values["penstock/gpu_utilization"], "")
        figure("NVML", "memory in use", used, "GB")


def test_without_nvml_or_a_gpu_of_its_own_nothing_is_told_and_nothing_fails(monkeypatch):
    properties = SimpleNamespace(uuid=UUID)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    for module in (None, stand_in(failing=True)):
        monkeypatch.setitem(sys.modules, "pynvml", module)
        assert asking(torch.device("cuda", 0)) is None
        heard = Heard()
        gauge(heard).begin()
        assert heard.told == []
    made = Gauge(torch.device("cpu"), Heard(), lambda: 0)
    made.begin()
    assert made._thread is None
