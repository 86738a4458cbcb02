"""DistributedDataParallel on one GPU: over NCCL in a group of one; over gloo by two ranks that
share it, because NCCL refuses two ranks of one device."""

import pytest
from tests.gpu.training import asked, config_of, found, killed, on

pytestmark = [pytest.mark.torch, pytest.mark.timeout(300)]


@on(pytest.mark.long)
def test_ddp_in_a_group_of_one(gpu_project, device, figure):
    config = config_of(device, ddp=True)
    killed(gpu_project, "run", asked(device, "run", config), step=20)
    gpu_project.run(asked(device, "twin", config))
    run, twin = found(gpu_project, "run"), found(gpu_project, "twin")
    assert run["weights"] == twin["weights"]
    assert run["backend"] == ("nccl" if device == "cuda" else "gloo")
    figure("DDP, a group of one", "a step", 1000 * twin["step"], "ms")


@on(pytest.mark.long)
def test_ddp_of_two_ranks_that_share_a_device(gpu_project, device, figure):
    gpu_project.environment["PENSTOCK_DEVICES"] = "gpu:"  # as if nobody knew of the GPU
    share = "cuda:0" if device == "cuda" else "cpu"
    size = {} if device == "cpu" else {"width": 512, "rows": 512}
    config = config_of(device, ddp=True, share=share, **size)
    options = {"workers": 2, "device": "auto"}
    killed(gpu_project, "run", asked(device, "run", config, **options), step=20)
    gpu_project.run(asked(device, "twin", config, **options))
    ranks = [found(gpu_project, name, rank) for name in ("run", "twin") for rank in (0, 1)]
    assert len({each["weights"] for each in ranks}) == 1, "ranks agree, and so does the killed run"
    assert {each["backend"] for each in ranks} == {"gloo"}
    assert {each["device"] for each in ranks} == {share}
    figure("DDP, two ranks on one device, gloo", "a step", 1000 * ranks[-1]["step"], "ms")
