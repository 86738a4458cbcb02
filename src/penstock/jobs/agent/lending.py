"""What an agent gives to its neighbours: shards of its node's cache, and states in its memory.

Shards are files by a checked name: the agent knows nothing of what is in them, and whoever reads
one verifies it. Used by gRPC threads; changes nothing, holds a file open for one call.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import grpc

from penstock.base.layout import Layout
from penstock.jobs.agent.parts import Gone, Parts
from penstock.jobs.neighbours.reads import PIECE, TRANCHE, Asked

_SHARD = re.compile(r"(v\d{1,4})/([0-9a-f]{64}\.arrow)")
_BUILDING = "building"  # folder beside the shards, of what is being written: NAME.ID.tmp
_NAP = 0.01  # seconds between two looks for a shard that is being built
_LONGEST = 1.0  # seconds that anybody may wait here


class Lending:
    """See the module.

    home   of the node's caches
    shards whether those are given, or states alone
    parts  of states, in the agent's memory
    """

    def __init__(self, home: Path, shards: bool, parts: Parts) -> None:
        self._layout = Layout(home)
        self._shards = shards
        self._parts = parts

    def read(self, asked: Asked, context: grpc.ServicerContext) -> Iterator[bytes]:
        """See `neighbours.reads`."""
        at = asked.get("at", 0)
        if not isinstance(at, int) or at < 0:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a place is a number")
        if "state" in asked:
            yield from self._state(asked["state"], at, context)
        else:
            yield from self._shard(asked, at, context)

    # -- shards ---------------------------------------------------------------------------------

    def _shard(self, asked: Asked, at: int, context: grpc.ServicerContext) -> Iterator[bytes]:
        match = _SHARD.fullmatch(str(asked.get("shard")))
        if match is None or not self._shards:
            _refuse(context, grpc.StatusCode.NOT_FOUND)
        wait = min(float(asked.get("wait", 0)), _LONGEST)
        handle = self._opened(match[1], match[2], wait, str(asked.get("but", "")), context)
        try:
            size = os.fstat(handle).st_size
            yield json.dumps({"bytes": size}).encode()
            yield from _pieces(handle, at, size)
        finally:
            os.close(handle)

    def _opened(
        self, form: str, name: str, wait: float, but: str, context: grpc.ServicerContext
    ) -> int:
        """The file's descriptor; waits for it while somebody builds it.

        but  what the asker itself writes, where its node has the same folder
        """
        until = time.monotonic() + wait
        while True:
            folders = self._folders(form)
            for folder in folders:
                try:
                    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
                    return os.open(folder / name, flags)
                except OSError:
                    continue
            if not any(_is_building(folder / _BUILDING, name, but) for folder in folders):
                _refuse(context, grpc.StatusCode.NOT_FOUND)
            if time.monotonic() >= until or not context.is_active():
                _refuse(context, grpc.StatusCode.ABORTED)
            time.sleep(_NAP)

    def _folders(self, form: str) -> list[Path]:
        """Of shards of this form: what all datasets share, and the parts of single ones."""
        quotas = self._layout.cache_quotas
        return [self._layout.shards / form, *(each / form for each in quotas.glob("*"))]

    # -- states ---------------------------------------------------------------------------------

    def _state(self, name: Any, at: int, context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            gang, step, rank = map(int, name)
            with self._parts.reading((gang, step, rank)) as part:
                told = {"bytes": part.nbytes, "seal": part.seal}
                yield json.dumps(told).encode()
                for piece in _pieces(part.handle, at, part.nbytes):
                    part.check()  # what was read before it went is whole
                    yield piece
        except (TypeError, ValueError):
            _refuse(context, grpc.StatusCode.INVALID_ARGUMENT)
        except KeyError:
            _refuse(context, grpc.StatusCode.NOT_FOUND)
        except Gone:
            _refuse(context, grpc.StatusCode.ABORTED)


def _is_building(folder: Path, name: str, but: str) -> bool:
    return any(each.name != but for each in folder.glob(f"{name}.*.tmp"))


def _pieces(handle: int, at: int, size: int) -> Iterator[bytes]:
    end = min(size, at + TRANCHE)
    while at < end and (piece := os.pread(handle, min(PIECE, end - at), at)):
        at += len(piece)
        yield piece


def _refuse(context: grpc.ServicerContext, code: grpc.StatusCode) -> NoReturn:
    context.abort(code, "")
    raise AssertionError("abort raises")
