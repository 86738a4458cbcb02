"""The checkpoint writer: a process beside the ranks that turns filled buffers into blobs.

Started by the agent, forked from the image; it ends with the agent. Single-threaded: one buffer
after the other, in the order in which they were handed over.
"""

from __future__ import annotations

import mmap
import os
from typing import Any

from penstock.blobs import open_blobs
from penstock.checkpoints import handle, index_of
from penstock.jobs.wire import Channel, Closed

_Key = tuple[int, str]  # rank, slot
RESCUED: dict[str, Any] = {"rescued": True, "metrics": {}, "best": None}


def main(channel: Channel, _: list[int], payload: dict[str, Any]) -> None:
    """The entry that the image calls."""
    blobs = open_blobs(payload["blobs"])
    buffers: dict[_Key, memoryview] = {}
    while True:
        try:
            found = channel.receive()
        except Closed:
            return
        if found is None:
            continue
        message, fds = found
        if "buffers" in message:
            _map(buffers, message["buffers"], fds)
        elif "hand" in message:
            channel.send({"done": _persist(buffers, message["hand"], blobs)})


def _map(buffers: dict[_Key, memoryview], who: dict[str, Any], fds: list[int]) -> None:
    """All slots that a seat has now; they are used again by every gang."""
    rank = who["rank"]
    for key in [key for key in buffers if key[0] == rank]:
        del buffers[key]
    for slot, fd in zip(who["slots"], fds, strict=True):
        buffers[rank, slot] = memoryview(mmap.mmap(fd, os.fstat(fd).st_size))
        os.close(fd)


def _persist(buffers: dict[_Key, memoryview], body: dict[str, Any], blobs: Any) -> dict[str, Any]:
    gang, rank, slot = body["gang"], body["rank"], body["slot"]
    view = buffers.get((rank, slot))
    if "seal" in body and view is not None:  # from the memory tier, where ranks said no more of it
        body = {**body, "index": index_of(view, body["seal"]), "extra": RESCUED}
    answer = handle(body, {slot: view} if view is not None else {}, blobs)
    return {"gang": gang, "slot": slot, "extra": body.get("extra", RESCUED), **answer}
