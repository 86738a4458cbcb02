"""A data worker: a process that makes batches for one rank. Forked from the image, never from a
rank.

    <- {"work": see `travel`} first, once
    <- {"job": id, "rows", "epochs", "cuts", "padded", "like", "free": [segments], "soon"}
    -> {"done": id, "segment", "bytes", "places"} + [the segment, when it is new]
    -> {"failed": id, "error"}

It ends when its rank closes the channel or dies; the agent (or the image, where there is no agent)
ends it when it is busy then. It keeps nothing: another one does the same work with the same result.
"""

from __future__ import annotations

import base64
import os
import socket
import sys
from typing import Any

import numpy as np

from penstock.base.errors import PenstockError
from penstock.data.pipeline.pages import keep_pages
from penstock.data.pipeline.plan import Picks
from penstock.data.pipeline.shared import Segments
from penstock.data.pipeline.travel import unpacked
from penstock.data.pipeline.work import failed
from penstock.jobs.wire import Channel, Closed


def main(channel: Channel, fds: list[int], payload: dict[str, Any]) -> None:
    """The entry that the image calls. fds[0]: the rank's end, where the agent keeps `channel`."""
    rank = Channel(socket.socket(fileno=fds[0])) if fds else channel
    try:
        rank.send({"hello": os.getpid()})
        _serve(rank)
    except Closed:
        sys.exit(0)


def _serve(rank: Channel) -> None:
    keep_pages()
    segments = Segments()
    source: Any = None
    work: Any = None
    broken: PenstockError | None = None
    while True:
        found = rank.receive()
        assert found is not None
        message, _ = found
        if "work" in message:
            try:
                source, work = unpacked(message["work"])
            except Exception as error:  # noqa: BLE001 - every job tells it
                broken = failed(error, "a data worker", None, None)
            continue
        segments.release(message.get("free", ()))
        if "soon" in message and source is not None and hasattr(source, "ahead"):
            source.ahead(_numbers(message["soon"]))
        if "job" not in message:
            continue
        try:
            if broken is not None:
                raise broken
            picks = picks_of(message)
            if hasattr(source, "ahead"):
                source.ahead(picks.rows)
            where, handle = segments.write(work.run(picks))
        except Exception as error:  # noqa: BLE001 - it is the step's
            told = failed(error, "a data worker", None, None).as_dict()
            rank.send({"failed": message["job"], "error": told})
        else:
            rank.send({"done": message["job"], **where}, () if handle is None else (handle,))


def job_of(number: int, picks: Picks) -> dict[str, Any]:
    """Picks as a message."""
    return {
        "job": number,
        "first": picks.first,
        "rows": text_of(picks.rows),
        "epochs": text_of(picks.epochs),
        "cuts": list(picks.cuts),
        "padded": None if picks.padded is None else text_of(picks.padded),
        "like": picks.like,
    }


def picks_of(message: dict[str, Any]) -> Picks:
    """The opposite of `job_of`."""
    cuts = message["cuts"]
    rows, epochs = (
        np.broadcast_to(_numbers(message[name]), cuts[-1:]).copy() for name in ("rows", "epochs")
    )
    if (padded := message["padded"]) is not None:
        padded = np.broadcast_to(_numbers(padded) > 0, cuts[-1:]).copy()
    return Picks(message["first"], rows, epochs, cuts, padded, like=message["like"])


def text_of(numbers: Any) -> str:
    """Numbers from 0 as text, short: as few bytes as the largest needs, once if all are equal."""
    if len(numbers) > 1 and (numbers == numbers[0]).all():
        numbers = numbers[:1]
    kind = np.min_scalar_type(int(numbers.max(initial=0)))
    return kind.char + base64.b64encode(numbers.astype(kind).tobytes()).decode()


def _numbers(text: str) -> Any:
    return np.frombuffer(base64.b64decode(text[1:]), text[0]).astype(np.int64)
