"""Rates are those of the time that steps took; MFU needs to know what a device can do."""

from __future__ import annotations

import pytest
from tests.monitoring.test_ledger import told

from penstock.base.units import show_bytes
from penstock.cli.accounts import rates
from penstock.monitoring import Told, throughput
from penstock.signals import segment
from penstock.signals.segment import Record


def rank(*seconds: float, samples: float = 8.0, flops: float = 1e9) -> Told:
    at = 0.0
    steps = []
    for number, took in enumerate(seconds, 1):
        at += took
        steps.append((number, at, took, 0.0))
    made = told(0, *steps)
    for place, _ in enumerate(seconds):
        made.samples[place], made.flops[place] = samples, flops
    made.device, made.dtype = "NVIDIA H200", "bfloat16"
    return made


def test_rates_add_up_over_ranks_and_attempts() -> None:
    found = throughput({(1, 0): rank(0.5, 0.5), (1, 1): rank(1.0), (2, 0): rank(1.0)}, None)
    assert found.samples == pytest.approx(24 / 2 + 8 / 1)
    assert found.tokens is None
    assert found.flops == pytest.approx(3e9 / 2 + 1e9)
    assert found.mfu == pytest.approx(found.flops / (2 * 989e12))


def test_of_late_only_the_newest_steps_count() -> None:
    found = throughput({(1, 0): rank(10.0, 1.0, 1.0)}, None, seconds=1.5)
    assert found.samples == pytest.approx(8.0)


def test_a_device_that_nobody_knows_has_no_mfu_unless_the_setting_says_what_it_can_do() -> None:
    one = rank(1.0)
    one.device = "cpu"
    assert throughput({(1, 0): one}, None).mfu is None
    assert throughput({(1, 0): one}, 4e9).mfu == pytest.approx(0.25)
    assert throughput({(1, 0): one, (1, 1): rank(1.0)}, None).mfu is None  # of one it is not known


def test_nothing_is_known_before_the_first_step() -> None:
    for nothing in ({}, {(1, 0): Told(0.0)}):
        found = throughput(nothing, 1e12)
        assert (found.samples, found.tokens, found.flops, found.mfu) == (None,) * 4


def test_gpus_are_a_mean_over_ranks_and_the_fullest_one() -> None:
    def with_gpu(*busy: float, used: float) -> Told:
        made = rank(*[1.0] * len(busy))
        for second, value in enumerate(busy):
            made.hear(Record(segment.SCALAR, 1, "penstock/gpu_utilization", value, second))
        made.hear(Record(segment.SCALAR, 1, "penstock/gpu_memory_bytes", used, 9.0))
        return made

    both = {(1, 0): with_gpu(0.2, 0.6, used=3e9), (1, 1): with_gpu(0.8, 1.0, used=5e9)}
    found = throughput(both, None)
    assert found.gpu_busy == pytest.approx(0.65) and found.gpu_bytes == 5e9
    assert throughput(both, None, seconds=0.5).gpu_busy == pytest.approx(0.8)
    assert rates(found)[-2:] == ["GPU 65 % busy", f"{show_bytes(5e9)} of its memory"]
    assert throughput({(1, 0): rank(1.0)}, None).gpu_busy is None
