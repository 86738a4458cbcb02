"""What a step waits for a save of a state that lies on the device, and how that gets off it."""

import statistics
import time

import pytest
import torch
from tests.gpu.training import asked, config_of, found, on, series

from penstock.checkpoints.copying import Span
from penstock.checkpoints.devices import Staged

pytestmark = [pytest.mark.torch, pytest.mark.timeout(300)]

MB = 1_000_000
# Of AdamW: parameters and two moments, four bytes each. Layers of 2048 x 2048 are 50 MB of state.
SIZES = {"small": (4, 4), "200 MB": (2048, 4), "2 GB": (2048, 40)}


def waits(project, device, figure, label, steps=120):
    width, layers = SIZES[label]
    size = {"width": width, "layers": layers, "steps": steps}
    project.environment["PENSTOCK_CHECKPOINT_MEMORY_EVERY"] = "5"
    argument = asked(device, "run", config_of(device, **size), checkpoint_every=steps // 2)
    project.run(argument)
    saving = dict(series(project, "run", "penstock/checkpoint_seconds"))
    steps_of = dict(series(project, "run", "penstock/step_seconds"))
    # A copy begins at the end of its step, and what is left of it is waited for in the next one.
    saves = [saving[step] + saving[step + 1] for step in range(20, steps - 1, 5)]
    plain = [steps_of[step] for step in range(20, steps) if step % 5 in (2, 3)]
    with_copy = [steps_of[step] for step in range(21, steps, 5)]
    scenario = f"a state of {label}"
    figure(scenario, "a save blocks, median", 1000 * statistics.median(saves), "ms")
    figure(scenario, "a save blocks, most", 1000 * max(saves), "ms")
    figure(scenario, "a step, median", 1000 * statistics.median(plain), "ms")
    figure(scenario, "a step beside a copy, median", 1000 * statistics.median(with_copy), "ms")
    return found(project, "run")


@on(pytest.mark.long)
def test_what_a_save_blocks(gpu_project, device, figure):
    label = "small" if device == "cpu" else "200 MB"
    assert waits(gpu_project, device, figure, label)["device"].startswith(device)
    assert gpu_project.committed("run") == 120


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda"], indirect=True)
def test_what_a_save_of_two_gigabytes_blocks(gpu_project, device, figure):
    waits(gpu_project, device, figure, "2 GB", steps=60)
    assert gpu_project.committed("run") == 60


def staged(device, nbytes):
    """Copies of two tensors that are changed as soon as that is allowed: the bytes that arrived,
    those that were meant, and the seconds until the queue had it and until all was there."""
    on_it = torch.device(device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    halves = [torch.randint(0, 255, (nbytes // 2,), dtype=torch.uint8, device=on_it) for _ in "ab"]
    meant = torch.cat([each.cpu() for each in halves]).numpy()
    buffer = bytearray(nbytes)
    target = torch.frombuffer(buffer, dtype=torch.uint8).numpy()
    spans = [Span(str(n), each, 0, n * (nbytes // 2), nbytes // 2) for n, each in enumerate(halves)]
    seconds = []
    more = int(device == "cuda")  # a CPU has no queue
    for _ in range(3):  # the first one pins memory
        copies = Staged(spans)
        wait()
        began = time.perf_counter()
        copies.launch()
        launched = time.perf_counter() - began
        copies.order()
        for each in halves:
            each.add_(more)  # queued behind the reading
        copies.drain(target)
        seconds.append((launched, time.perf_counter() - began))
        arrived = target.copy()
        for each in halves:
            each.sub_(more)
    return arrived, meant, min(seconds), copies


@on()
def test_copies_leave_a_device_without_blocking_and_before_what_comes_later(device, figure):
    nbytes = 2 * MB if device == "cpu" else 1000 * MB
    arrived, meant, (launched, whole), copies = staged(device, nbytes)
    assert (arrived == meant).all()
    if device == "cpu":  # nothing is queued there
        return
    assert all(part.is_pinned() for _, part in copies._arrived)
    assert launched < whole / 2, "launching does not wait for the copy"
    figure("copies of 1 GB off the device", "until they are queued", 1000 * launched, "ms")
    figure("copies of 1 GB off the device", "bytes a second", nbytes / whole / 1e9, "GB/s")
