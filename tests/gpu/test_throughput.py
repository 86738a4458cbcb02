"""MFU of a model that is nearly all products, by the account of the run."""

import pytest
from tests.gpu.training import asked, config_of, found, on

from penstock.home.local import LocalHome

pytestmark = [pytest.mark.torch, pytest.mark.timeout(300)]


@on(pytest.mark.long)
def test_mfu_is_told_against_what_the_device_can_do(gpu_project, device, figure):
    size = {} if device == "cpu" else {"width": 8192, "layers": 4, "rows": 8192, "steps": 120}
    config = config_of(device, pause=0.0, precision="bf16", exact=False, **size)
    products = config["layers"] * config["width"] ** 2 * config["rows"]
    gpu_project.environment["PENSTOCK_CHECKPOINT_MEMORY_EVERY"] = "off"
    config |= {"flops": 6 * products, "dtype": "bfloat16"}  # forward 2, backward 4
    gpu_project.run(asked(device, "run", config, checkpoint_every=10_000))
    told = LocalHome(gpu_project.settings).account("run").throughput
    by_clock = config["flops"] / found(gpu_project, "run")["step"]
    assert 0 < told.mfu < 1
    assert told.flops < 1.5 * by_clock
    figure("matrix products in bf16", "MFU, by the account", told.mfu, "")
    figure("matrix products in bf16", "FLOPs a second", by_clock / 1e12, "TFLOP/s")
