"""What devices can do at most: dense products, in FLOPs a second, as their makers' data sheets say.

Figures with structured sparsity are twice as high, and are not these. A device that is not here
has no utilisation, unless the setting `peak_flops` says what it can do.
"""

from __future__ import annotations

_T = 1e12
_COLUMNS = ("half", "tf32", "float32")
# The first name that a device's own name contains holds: the longer ones stand first.
_PEAKS: dict[str, tuple[float | None, float | None, float | None]] = {
    "B200": (2250, 1125, 75),
    "H200 NVL": (835, 418, 60),
    "H200": (989, 495, 67),
    "H100 NVL": (835, 418, 60),
    "H100 PCIe": (756, 378, 51),
    "H100": (989, 495, 67),
    "A100": (312, 156, 19.5),
    "L40S": (362, 183, 91.6),
    "L4": (121, 60, 30.3),
    "A10": (125, 62.5, 31.2),
    "RTX A6000": (155, 77.4, 38.7),
    "RTX 4090": (165, 82.6, 82.6),
    "RTX 3090": (71, 35.6, 35.6),
    "V100": (125, None, 15.7),
    "T4": (65, None, 8.1),
}


def peak(device: str, dtype: str) -> float | None:
    """FLOPs a second of one device in one dtype; None where nobody knows.

    device  as CUDA names it, "NVIDIA H200"
    dtype   "bfloat16", "float16", "tf32" or "float32"

    >>> peak("NVIDIA H100 80GB HBM3", "bfloat16"), peak("cpu", "float32")
    (989000000000000.0, None)
    """
    column = _COLUMNS.index("half" if dtype in ("bfloat16", "float16") else dtype)
    words = f" {device.replace('-', ' ')} "
    for name, row in _PEAKS.items():
        if f" {name} " in words:
            value = row[column]
            return None if value is None else value * _T
    return None
