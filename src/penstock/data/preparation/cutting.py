"""Inputs into units, and what their bytes are.

A piece of a large file is a unit of its own; small files share one. Where a unit ends follows from
the names and sizes of the files near it, so that a file more or less changes one unit or two, not
all that come after.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from penstock.data.formats import Input, InputSource
from penstock.data.preparation.keying import bare, stamp_key

if TYPE_CHECKING:
    from penstock.meta import Meta

UNIT_BYTES = 4 << 20
UNIT_INPUTS = 512
_LEAST = 4  # a unit may end from a fourth of its size on

Inputs = list[Input]


def cut(inputs: Sequence[Input], unit_bytes: int | None = None) -> list[Inputs]:
    """Units in order, each of neighbours: 1 to 4 MiB or 128 to 512 files, or one larger input.

    unit_bytes  up to which files share a unit; 0: none does; default 4 MiB
    """
    most = max(1, UNIT_BYTES if unit_bytes is None else unit_bytes)
    units: list[Inputs] = []
    open_unit: Inputs = []
    size = 0
    for each in inputs:
        if open_unit and (
            size + each.size > most or len(open_unit) >= UNIT_INPUTS or each.piece is not None
        ):
            units.append(open_unit)
            open_unit, size = [], 0
        open_unit.append(each)
        size += each.size
        full = max(size / most, len(open_unit) / UNIT_INPUTS)
        if each.piece is not None or (full >= 1 / _LEAST and _ends(each, most)):
            units.append(open_unit)
            open_unit, size = [], 0
    return [*units, open_unit] if open_unit else units


def _ends(input: Input, most: int) -> bool:
    """Whether a unit may end behind this input: said by its name alone, more likely the larger it
    is, so that about half of a unit is passed on average."""
    word = int.from_bytes(hashlib.sha256(input.name.encode()).digest()[:4], "big") / 2**32
    return word < 2 * max(input.size / most, 1 / UNIT_INPUTS)


def digests_of(
    meta: Meta, source: InputSource, units: Sequence[Inputs], defer: bool
) -> list[list[str]] | None:
    """The digest of every input, remembered by place, size and time of change.

    defer  where nothing is remembered, return None: the units will tell. Otherwise what is missing
           is hashed here, by as many threads as there are cores
    Raises what reading files raises.
    """
    keys = [stamp_key(source.identity, unit) for unit in units]
    with meta.read() as reader:
        known = {key: memory["digests"] for key in keys if (memory := reader.recall(key))}
    missing = [number for number, key in enumerate(keys) if key not in known]
    if defer and len(missing) == len(units):
        return None
    if missing:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            found = pool.map(lambda n: [bare(source.digest(i)) for i in units[n]], missing)
            new = {keys[n]: digests for n, digests in zip(missing, found, strict=True)}
        with meta.write() as writer:
            for key, digests in new.items():
                writer.remember(key, "digests", {"digests": digests}, ())
        known |= new
    return [known[key] for key in keys]
