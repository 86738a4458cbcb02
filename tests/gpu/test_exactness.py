"""Killed and gone on, the weights are those of an undisturbed run, in every bit: the device's own
generator, the context of a process that was killed, autocast and torch.compile included."""

import pytest
from tests.gpu import training
from tests.gpu.training import asked, config_of, found, killed, on

pytestmark = [pytest.mark.torch, pytest.mark.timeout(300)]


def equal_after_a_kill(project, device, figure, scenario, **changes):
    """Two runs, of which one is killed; what the killed one found, in its last attempt."""
    config = config_of(device, **changes)
    seconds = killed(project, "run", asked(device, "run", config), step=20)
    project.run(asked(device, "twin", config))
    run, twin = found(project, "run"), found(project, "twin")
    assert run["weights"] == twin["weights"]
    assert run["device"].startswith(device)
    figure(scenario, "rank killed to next step", seconds, "s")
    figure(scenario, "a step", 1000 * twin["step"], "ms")
    return run


@on()
def test_a_killed_run_ends_with_equal_weights(gpu_project, device, figure):
    equal_after_a_kill(gpu_project, device, figure, "float32, deterministic")
    (tier,) = [each["from"] for each in gpu_project.events("run", "attempt.resumed")]
    assert tier in ("memory", "disk")


@on(pytest.mark.long)
def test_also_with_autocast(gpu_project, device, figure):
    equal_after_a_kill(gpu_project, device, figure, "bf16 autocast", precision="bf16")


@on(pytest.mark.long)
def test_also_compiled_and_the_second_attempt_compiles_nothing(gpu_project, device, figure):
    changes = {"precision": "bf16", "compile": True}
    run = equal_after_a_kill(gpu_project, device, figure, "bf16, compiled", **changes)
    assert run["compiled"]["hit"] > 0 and run["compiled"]["miss"] == 0
    begun = training.times(gpu_project, "run", "attempt.started")
    stepping = training.times(gpu_project, "run", "attempt.stepping")
    first, second = (step - start for start, step in zip(begun, stepping, strict=True))
    figure("bf16, compiled", "first attempt to its first step", first, "s")
    figure("bf16, compiled", "second attempt to its first step", second, "s")


@on(pytest.mark.long)
def test_what_deterministic_algorithms_cost(gpu_project, device, figure):
    steps = {}
    for name, exact in (("exact", True), ("free", False)):
        gpu_project.run(asked(device, name, config_of(device, exact=exact, pause=0.0)))
        steps[exact] = found(gpu_project, name)["step"]
    figure("deterministic algorithms", "a step with them", 1000 * steps[True], "ms")
    figure("deterministic algorithms", "a step without", 1000 * steps[False], "ms")
    figure("deterministic algorithms", "with / without", steps[True] / steps[False], "x")
