"""What the files of Weights & Biases hold of a run: the steps of its history.

A `.wandb` file is a header of 7 bytes and records in the format of LevelDB's log: blocks of 32 KiB,
pieces of a record that fit into one, each with a checksum (CRC-32 here), a length and a place (all
of it, its first, a middle one, its last). A record is a protobuf message of W&B's. The service that
writes a file may be killed at any byte: what follows the last whole record is left out.
"""

from __future__ import annotations

import importlib
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MAGIC = b":W&B" + struct.pack("<H", 0xBEE1)
_HEADER, _BLOCK = 7, 1 << 15
_PIECE = struct.Struct("<IHB")  # checksum, bytes, place
_ALL, _FIRST, _LAST = 1, 2, 4


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a run's history, in their order: name -> value, "_step" among them."""
    record_of = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
    for data in _records(path.read_bytes()):
        record = record_of.FromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            yield {
                ".".join(each.nested_key) or each.key: json.loads(each.value_json) for each in items
            }


def files(folder: Path, run_id: str) -> list[Path]:
    """Those of all beginnings of one run of theirs, oldest first."""
    return sorted(folder.glob(f"wandb/*run-*-{run_id}/run-{run_id}.wandb"))


def last_step(folder: Path, run_id: str) -> int:
    """The highest step of any file; -1: none."""
    found = (int(row["_step"]) for path in files(folder, run_id) for row in rows(path))
    return max(found, default=-1)


def _records(data: bytes) -> Iterator[bytes]:
    at, record = _HEADER, b""
    if not data.startswith(_MAGIC):
        return
    while True:
        if _BLOCK - at % _BLOCK < _PIECE.size:
            at += _BLOCK - at % _BLOCK  # no piece begins there
        if at + _PIECE.size > len(data):
            return
        checksum, size, place = _PIECE.unpack_from(data, at)
        piece = data[at + _PIECE.size : at + _PIECE.size + size]
        if len(piece) < size or zlib.crc32(piece, zlib.crc32(bytes([place]))) != checksum:
            return
        at += _PIECE.size + size
        record = piece if place in (_ALL, _FIRST) else record + piece
        if place in (_ALL, _LAST):
            yield record
