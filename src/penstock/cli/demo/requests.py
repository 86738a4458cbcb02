"""Requests to a served model by tritonclient, compared with the same model called in process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Served:
    """sent, failed  requests; equal: labels equal and outputs within 1e-5; apart: largest gap."""

    sent: int
    failed: int
    equal: bool
    apart: float


def ask(address: str, name: str, images: Any, offline: Any) -> Served:
    """One request per image.

    images   float32 [N, ...]
    offline  logits of the same model in process, float32 [N, C]
    """
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

    client = triton.InferenceServerClient(address)
    answers: list[Any] = []
    failed = 0
    for image in images:
        tensor = triton.InferInput("image", [1, *image.shape], "FP32")
        tensor.set_data_from_numpy(image[None])
        try:
            answers.append(client.infer(name, [tensor]).as_numpy("output")[0])
        except InferenceServerException:
            failed += 1
    client.close()
    if failed or not answers:
        return Served(len(images), failed, False, float("nan"))
    online = np.stack(answers)
    apart = float(np.abs(online - offline).max())
    same = bool((online.argmax(1) == offline.argmax(1)).all()) and apart <= _TOLERANCE
    return Served(len(images), failed, same, apart)
