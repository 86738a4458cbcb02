"""The page's own reader reads what Penstock wrote."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"


def test_a_checkpoint_is_read_without_penstock(blobs, save) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    room: dict[str, Any] = {}
    exec(code, room)
    shared = {
        "model": {"w": torch.randn(40, 3), "big": torch.arange(400_000)},
        "optimizer": {"seen": np.arange(5)},
    }
    checkpoint = save(blobs, shared, [{"rank": torch.full((9,), rank)} for rank in range(3)])
    found = room["read_shared"](blobs.path(checkpoint.digest), blobs.path)
    assert list(found) == ["shared.model.w", "shared.model.big", "shared.optimizer.seen"]
    assert np.array_equal(found["shared.model.w"], shared["model"]["w"].numpy())
    assert np.array_equal(found["shared.model.big"], shared["model"]["big"].numpy())
    assert np.array_equal(found["shared.optimizer.seen"], shared["optimizer"]["seen"])
