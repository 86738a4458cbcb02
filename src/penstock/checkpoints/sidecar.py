"""What the checkpoint writer does with one message. Sockets and processes are its host's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from penstock.base.errors import BadInput, PenstockError
from penstock.blobs import Blobs
from penstock.checkpoints.writer import persist


def handle(
    message: Mapping[str, Any], buffers: Mapping[str, memoryview], blobs: Blobs
) -> dict[str, Any]:
    """Persist one slot and say what became of it.

    message  {"slot": str, "step": int, "rank": int, "index": `Plan.index`}
    buffers  slot -> the memory a rank copied its part into; its owner keeps it unchanged until
             the answer is there
    returns  {"step", "rank", "part": …, "seconds": of a core} or
             {"step", "rank", "error": PenstockError.as_dict()}

    A failure is an answer, not an exception: a full disk costs a checkpoint, never the training.
    """
    answer: dict[str, Any] = {"step": message["step"], "rank": message["rank"]}
    began = time.thread_time()
    try:
        answer["part"] = persist(slot_of(message["slot"], buffers), message["index"], blobs)
        answer["seconds"] = time.thread_time() - began
    except PenstockError as error:
        answer["error"] = error.as_dict()
    return answer


def slot_of(name: str, buffers: Mapping[str, memoryview]) -> memoryview:
    """Raises BadInput for one that was not announced."""
    if name not in buffers:
        raise BadInput(
            f'there is no slot "{name}"',
            "Announce a buffer before sending messages about it.",
            slot=name,
            known=sorted(buffers),
        )
    return buffers[name]
