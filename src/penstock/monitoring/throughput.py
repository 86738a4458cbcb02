"""How much goes through: samples, tokens and FLOPs a second of all ranks, and the part of what the
devices could do (MFU, model FLOPs utilisation: Chowdhery et al. 2022, PaLM, appendix B)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from penstock.monitoring.peaks import peak
from penstock.monitoring.told import Told


@dataclass(frozen=True, slots=True)
class Throughput:
    """Of steps, with all that belongs to them, over the time that they took; None: not told.

    samples, tokens, flops  a second, of all ranks together
    mfu                     flops / what the ranks' devices can do; 0..1
    gpu_busy                mean over ranks of how busy their GPUs were, as the driver says; 0..1
    gpu_bytes               of GPU memory that were in use of late, on the fullest one
    """

    samples: float | None
    tokens: float | None
    flops: float | None
    mfu: float | None
    gpu_busy: float | None = None
    gpu_bytes: float | None = None


def throughput(
    told: Mapping[tuple[int, int], Told], peak_flops: float | None, seconds: float | None = None
) -> Throughput:
    """Over all attempts in `told`, or over the newest `seconds` of it.

    peak_flops  of one rank's device; None: by the table in `peaks`
    """
    time: dict[int, float] = defaultdict(float)
    amounts: dict[str, dict[int, float]] = {"samples": {}, "tokens": {}, "flops": {}}
    peaks: dict[int, float] = {}
    for (_, rank), own in told.items():
        _, ends, took, _ = own.columns()
        lately = ends > (ends[-1] - seconds if seconds is not None and len(ends) else -np.inf)
        time[rank] += float(took[lately].sum())
        for name, each in amounts.items():
            total = float(np.nansum(np.array(getattr(own, name))[lately]))
            each[rank] = each.get(rank, 0.0) + total
        found = peak_flops or peak(own.device, own.dtype)
        if found is not None:
            peaks[rank] = found

    def rate(name: str) -> float | None:
        rates = [total / time[rank] for rank, total in amounts[name].items() if time[rank] > 0]
        return sum(rates) or None

    flops = rate("flops")
    known = len(peaks) == len(time) and flops is not None
    mfu = flops / sum(peaks.values()) if known and flops is not None else None
    busy, full = _gauges(told, seconds)
    return Throughput(rate("samples"), rate("tokens"), flops, mfu, busy, full)


def _gauges(
    told: Mapping[tuple[int, int], Told], seconds: float | None
) -> tuple[float | None, float | None]:
    """How busy GPUs were, and how full the fullest was of late."""
    means = []
    for own in told.values():
        since = own.busy[-1][0] - seconds if own.busy and seconds is not None else -np.inf
        if lately := [value for at, value in own.busy if at > since]:
            means.append(sum(lately) / len(lately))
    full = [own.gpu_bytes for own in told.values() if own.gpu_bytes is not None]
    return (sum(means) / len(means) if means else None), max(full, default=None)
