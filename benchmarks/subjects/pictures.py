"""The pictures of the benchmark `prepare`, and the one thing that every subject does with each.

`python pictures.py FOLDER FIRST LAST`: write pictures FIRST..LAST-1, JPEG, 320 x 240, some 20 KB:
smooth shapes with a little noise, each another.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 96


def shrink(data: bytes) -> Any:
    """JPEG -> uint8 [96, 96, 3]."""
    with Image.open(io.BytesIO(data)) as picture:
        small = picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        return np.asarray(small)


def row(row: dict[str, Any], log: str = "") -> dict[str, Any]:
    """The step of Penstock. log: file that gets a line per picture."""
    if log:
        with Path(log).open("a") as file:
            file.write(f"{row['key']}\n")
    return {"key": row["key"], "image": shrink(row["image"])}


def name(number: int) -> str:
    return f"{number // 1000:03d}/{number:06d}.jpg"


def write(folder: Path, first: int, last: int) -> None:
    y, x = np.mgrid[0:240, 0:320].astype(np.float32) / 20
    grain = np.random.default_rng(0).normal(0, 6, (480, 640, 1)).astype(np.float32)
    for number in range(first, last):
        draw = np.random.default_rng(number)
        across, down, phase = draw.uniform(0.1, 2.4, (3, 3)).astype(np.float32)
        planes = [127 + 90 * np.sin(a * x + b * y + c)
                  for a, b, c in zip(across, down, phase, strict=True)]  # fmt: skip
        top, left = draw.integers(0, 240), draw.integers(0, 320)
        noise = grain[top : top + 240, left : left + 320]
        pixels = (np.stack(planes, -1) + noise).clip(0, 255).astype(np.uint8)
        path = folder / name(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=88)


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
