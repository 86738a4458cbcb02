"""The checkpoint writer: a process beside the ranks that turns filled buffers into blobs.

Started by the agent, forked from the image; it ends with the agent. One buffer after the other, in
the order in which they were handed over. Where the store is a far one, buffers go to this machine's
disk, and a thread carries them on.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

from penstock.base import log
from penstock.base.errors import PenstockError
from penstock.base.layout import Layout
from penstock.blobs import Blobs, open_blobs
from penstock.checkpoints import Staged, Uploads, handle, index_of
from penstock.jobs.wire import Channel, Closed
from penstock.training.choosing import is_far

_Key = tuple[int, str]  # rank, slot
_log = log.logger("checkpoint")
RESCUED: dict[str, Any] = {"rescued": True, "metrics": {}, "best": None}


def main(channel: Channel, _: list[int], payload: dict[str, Any]) -> None:
    """The entry that the image calls."""
    log.set_up("info", "json")
    blobs = open_blobs(payload["blobs"])
    staging = _staging(channel, blobs, payload)
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
            body, views = _as_written(buffers, message["hand"])
            if staging is None or not staging.took(body, views):
                channel.send({"done": _persist(body, views, blobs)})


def _staging(channel: Channel, blobs: Blobs, payload: dict[str, Any]) -> _Staging | None:
    """None where parts go straight to the store: one that is near, no room for them here, or a
    controller that does not see this disk."""
    if "home" not in payload or not is_far(payload["blobs"]):  # one of an earlier version
        return None
    if payload.get("elsewhere"):
        return None
    staged = Staged(Layout(Path(payload["home"])).staged)
    return _Staging(channel, staged, payload["run_id"], blobs) if staged.is_used else None


class _Staging:
    """Parts by way of this machine's disk."""

    def __init__(self, channel: Channel, staged: Staged, run_id: str, blobs: Blobs) -> None:
        self._channel, self._staged, self._run_id = channel, staged, run_id
        self._uploads = Uploads(staged, run_id, blobs, self._tell)

    def took(self, body: dict[str, Any], views: dict[str, memoryview]) -> bool:
        """False: there is no way but to the store itself, and nothing before it is on its way."""
        if not views:
            return False
        try:
            if self._uploads.wait_for_room(body["index"]["nbytes"]):
                note = self._staged.stage(self._run_id, body, views)
                self._channel.send({"staged": {"rank": body["rank"], "slot": body["slot"]}})
                self._uploads.add(note)
                return True
        except PenstockError as error:
            _log.warning("no checkpoint on this disk: %s", error, extra=log.facts(code=error.code))
        self._uploads.settle()
        return False

    def _tell(self, about: dict[str, Any]) -> None:
        self._channel.send({"done": {"slot": "", "extra": RESCUED, **about}})


def _map(buffers: dict[_Key, memoryview], who: dict[str, Any], fds: list[int]) -> None:
    """All slots that a seat has now; they are used again by every gang."""
    rank = who["rank"]
    for key in [key for key in buffers if key[0] == rank]:
        del buffers[key]
    for slot, fd in zip(who["slots"], fds, strict=True):
        buffers[rank, slot] = memoryview(mmap.mmap(fd, os.fstat(fd).st_size))
        os.close(fd)


def _as_written(
    buffers: dict[_Key, memoryview], body: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, memoryview]]:
    """What was handed over, and its slot."""
    view = buffers.get((body["rank"], body["slot"]))
    if "seal" in body and view is not None:  # from the memory tier, where ranks said no more of it
        body = {**body, "index": index_of(view, body["seal"])}
    body.setdefault("extra", RESCUED)
    return body, {body["slot"]: view} if view is not None else {}


def _persist(body: dict[str, Any], views: dict[str, memoryview], blobs: Blobs) -> dict[str, Any]:
    answer = handle(body, views, blobs)
    return {"gang": body["gang"], "slot": body["slot"], "extra": body["extra"], **answer}
