"""Fetching a blob: large ones in ranges, several at once, handed on in order and verified."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

from penstock.base.hashing import Hasher
from penstock.blobs import Blobs
from penstock.blobs.check import damaged

RANGE = 8 << 20  # bytes of one read
PARALLEL = 4  # reads of one blob at once: at most so many ranges lie in memory


def fetch(blobs: Blobs, digest: str, size: int, give: Callable[[int, bytes], object]) -> None:
    """Call give(place, bytes) for every piece of a blob, in order of their places.

    size  in bytes, as the manifest says
    Raises NotFound, Damaged (when all was given: whoever takes it must not show it before), and
    what `give` raises. Its threads end with the call.
    """
    if size <= RANGE:
        give(0, blobs.get(digest))
        return
    hasher = Hasher()
    with ExitStack() as ending:
        pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="penstock-fetch")
        ending.callback(pool.shutdown, wait=True, cancel_futures=True)
        reads: deque[Future[bytes]] = deque()
        starts = iter(range(0, size, RANGE))
        for at in range(0, size, RANGE):
            while len(reads) < PARALLEL and (start := next(starts, None)) is not None:
                reads.append(pool.submit(blobs.read, digest, start, min(RANGE, size - start)))
            piece = reads.popleft().result()
            hasher.update(piece)
            give(at, piece)
    if hasher.digest != digest:
        raise damaged(digest, blobs.url, hasher.digest, hasher.size)
