"""What torch.compile has compiled, kept in the home for later attempts and runs, within a limit.

Inductor and Triton look everything up by a hash of what it was made from, machine included, and
make anew what is not there: any file may go at any time, and one that is in use stays mapped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from penstock.base.layout import Layout
from penstock.jobs import environment

_GRACE = 3600.0  # seconds; what is younger may be half of something that is being compiled


def use(layout: Layout) -> None:
    """This process, and what it starts, compile into the home; unless the user said where."""
    with suppress(OSError):  # a home that cannot be written: compiling says so, where it happens
        layout.compiled.mkdir(mode=0o700, parents=True, exist_ok=True)  # it is loaded as code
    environment.settle_here(os.environ, compiled=layout.compiled)


def trim(folder: Path, limit: int, dry_run: bool = False, grace: float = _GRACE) -> int:
    """Remove what was used longest ago, until all takes `limit` bytes.

    grace    seconds; files used or made within it stay
    returns  bytes that were removed, or would be
    """
    found = sorted(_files(folder))
    over = sum(size for _, size, _ in found) - limit
    removed = 0
    for used, size, path in found:
        if removed >= over or used > time.time() - grace:
            break
        with suppress(OSError):
            if not dry_run:
                Path(path).unlink()
            removed += size
    return removed


def _files(folder: Path) -> Iterator[tuple[float, int, str]]:
    """(last use, bytes on the disk, path)."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = f"{place}/{name}"
            with suppress(OSError):  # it went meanwhile
                seen = os.lstat(path)
                yield max(seen.st_atime, seen.st_mtime), seen.st_blocks * 512, path
