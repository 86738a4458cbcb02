"""Taking a shard from another node's cache, where the agents of a run are neighbours.

What comes is written into the file that is being built and believed only when it was verified: an
Arrow shard by the digest that its manifest says, as when it comes from the blob store; one that was
Parquet by the trailer that the other node wrote when it laid it out (`form`). An answer that is
wrong, torn or late is counted and said, and the next neighbour or the blob store is asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import xxhash

from penstock.base.errors import Unavailable
from penstock.base.hashing import Hasher
from penstock.data.cache import form
from penstock.data.cache.counters import Tally
from penstock.data.cache.opened import map_file
from penstock.data.cache.space import FORMAT
from penstock.data.manifest import Shard
from penstock.jobs.neighbours import VARIABLE

if TYPE_CHECKING:
    from penstock.jobs.neighbours.asking import Offer

Write = Callable[[int, bytes, int], None]  # (descriptor, bytes, place)


class Near:
    """One cache's way to those of other nodes. Safe for threads; holds nothing."""

    def __init__(self, tally: Tally, write: Write) -> None:
        self._tally = tally
        self._write = write

    def copy(self, shard: Shard, name: str, scratch: str, handle: int) -> xxhash.xxh3_128 | None:
        """Fill a file with an Arrow shard's bytes. Their hash, for the trailer; None when no
        neighbour gave them: then what is in the file means nothing."""
        for offer in _offers(name, scratch):
            if offer.bytes != shard.bytes + form.TRAILER.size:
                self._refuse(offer, "a file of another length")
                continue
            digest, hashed, left = Hasher(), xxhash.xxh3_128(), shard.bytes
            try:
                for piece in offer.pieces():
                    body = piece[:left]
                    self._write(handle, body, shard.bytes - left)
                    digest.update(body)
                    hashed.update(body)
                    left -= len(body)
            except Unavailable as error:
                self._refuse(offer, error.what)
                continue
            if left == 0 and digest.digest == shard.digest:
                self._tally.count(near=shard.bytes)
                return hashed
            self._refuse(offer, "other bytes than the manifest says")
        return None

    def laid_out(self, name: str, new: Callable[[int], int], drop: Callable[[int], None]) -> bool:
        """A file with a shard that was Parquet, as another node laid it out; False when no
        neighbour gave it, and then there is no file.

        new   a file with room for so many bytes: its descriptor, which is given back to `drop`,
              or closed here
        """
        for offer in _offers(name, ""):
            handle, at = new(offer.bytes), 0
            try:
                for piece in offer.pieces():
                    self._write(handle, piece, at)
                    at += len(piece)
                if form.is_whole(map_file(handle)):
                    self._tally.count(near=offer.bytes)
                    os.close(handle)
                    return True
                self._refuse(offer, "a file that is not whole")
            except Unavailable as error:
                self._refuse(offer, error.what)
            except BaseException:
                drop(handle)
                raise
            drop(handle)
        return False

    def _refuse(self, offer: Offer, why: str) -> None:
        self._tally.count(refused=1)
        offer.refuse(why)


def _offers(name: str, scratch: str) -> Iterable[Offer]:
    """What neighbours have; nothing where there are none, and then gRPC is not imported either."""
    if not os.environ.get(VARIABLE):
        return ()
    from penstock.jobs.neighbours.asking import asking

    found = asking()
    return () if found is None else found.offers(f"{FORMAT}/{name}", scratch)
