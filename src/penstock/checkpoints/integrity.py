"""Reading chunks and telling which of them are damaged; the newest checkpoint that is whole.

Damage is what the bytes say; a store that does not answer is an error (Unavailable), never
damage: a run must not fall back to an old step because a disk was away for a minute.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Protocol, runtime_checkable

import xxhash

from penstock.base.errors import Damaged, NotFound, Unavailable
from penstock.base.hashing import short
from penstock.checkpoints.chunks import Chunk
from penstock.checkpoints.manifest import Manifest, Part, read_manifest
from penstock.records import Checkpoint

_FIX = "An older checkpoint is used; `penstock runs verify` shows what else is damaged."


class Readable(Protocol):
    """Where the bytes of parts are: a blob store, slots in memory, or copies before a store."""

    def open(self, digest: str) -> AbstractContextManager[BinaryIO]: ...


class Readings(Readable, Protocol):
    """Where manifests are as well."""

    def get(self, digest: str) -> bytes: ...


@runtime_checkable
class Doubtful(Protocol):
    """A place whose bytes may be only copies: others are to be had where these are damaged."""

    def distrust(self, digest: str) -> bool:
        """Remove the copy, so that the next `open` gives the others. False: there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a checkpoint that are not what its manifest says.

    rank     whose part it is; None: the manifest itself
    chunk    number in that part, from 0; None: the whole part
    tensors  names of the tensors that have bytes there
    what     one clause: "its bytes have changed", "it is missing", …
    blob     digest of the blob where it was met
    """

    step: int
    rank: int | None
    chunk: int | None
    tensors: tuple[str, ...]
    what: str
    blob: str = ""

    def __str__(self) -> str:
        """One line for people."""
        if self.rank is None:
            return f"the manifest of checkpoint {self.step}: {self.what}"
        place = "part" if self.chunk is None else f"chunk {self.chunk} of the part"
        names = ", ".join(self.tensors[:3])
        more = f" and {len(self.tensors) - 3} more" if len(self.tensors) > 3 else ""
        holds = f" ({names}{more})" if names else ""
        return f"{place} of rank {self.rank} of checkpoint {self.step}{holds}: {self.what}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` is the way back."""
        return asdict(self) | {"tensors": list(self.tensors)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Damage:
        return cls(**{**data, "tensors": tuple(data["tensors"])})

    def as_error(self) -> Damaged:
        """The same as an error, for a reader that cannot go on."""
        return Damaged(str(self), _FIX, damage=self.as_dict())


@dataclass(frozen=True, slots=True)
class Found:
    """checkpoint, manifest  the newest whole one; None when there is none
    damages  met in newer ones on the way, newest first
    """

    checkpoint: Checkpoint | None
    manifest: Manifest | None
    damages: list[Damage]


def verify(checkpoint: Checkpoint, blobs: Readings) -> list[Damage]:
    """Read all of a checkpoint and return what is damaged; an empty list means it is whole.

    Raises NewerSchema, Unavailable.
    """
    return examine(checkpoint, blobs)[1]


def newest_whole(checkpoints: Iterable[Checkpoint], blobs: Readings) -> Found:
    """Verify from the newest step backwards until one is whole. Raises NewerSchema, Unavailable.

    Changes nothing: a damaged blob is replaced by `persist` when its bytes are written again.
    """
    damages: list[Damage] = []
    for checkpoint in newest_first(checkpoints):
        manifest, found = examine(checkpoint, blobs)
        if manifest is not None and not found:
            return Found(checkpoint, manifest, damages)
        damages += found
    return Found(None, None, damages)


def newest_first(checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    """By step, then by generation."""
    return sorted(checkpoints, key=lambda c: (c.step, c.generation), reverse=True)


def examine(checkpoint: Checkpoint, blobs: Readings) -> tuple[Manifest | None, list[Damage]]:
    """The manifest (None when it cannot be read) and all damage."""
    manifest, damage = open_manifest(checkpoint, blobs)
    if manifest is None:
        return None, [damage] if damage else []
    damages = []
    for part in manifest.parts:
        everything = range(len(part.chunks))
        for _, found in read_chunks(blobs, manifest.step, part, everything, to_the_end=True):
            damages += [found] if isinstance(found, Damage) else []
    return manifest, damages


def open_manifest(checkpoint: Checkpoint, blobs: Readings) -> tuple[Manifest | None, Damage | None]:
    """The manifest, or what is wrong with it."""
    try:
        manifest = read_manifest(blobs, checkpoint.digest)
    except NotFound:
        what = f"its blob {short(checkpoint.digest)}… is missing"
    except Damaged as error:
        what = error.what
    else:
        if (manifest.run_id, manifest.step) == (checkpoint.run_id, checkpoint.step):
            return manifest, None
        what = f"it belongs to run {manifest.run_id}, step {manifest.step}"
    return None, Damage(checkpoint.step, None, None, (), what, checkpoint.digest)


def read_chunks(
    blobs: Readable, step: int, part: Part, numbers: Sequence[int], to_the_end: bool = False
) -> Iterator[tuple[int, bytes | Damage]]:
    """The bytes of the chunks asked for, each verified, or the damage found in their place.

    numbers     of chunks, ascending
    to_the_end  also look whether the blob is longer than its part, which harms no chunk
    A missing blob is one damage that names all the part's tensors, numbered -1.
    Raises Unavailable when the store does not answer.
    """
    reading = _read_chunks(blobs, step, part, numbers, to_the_end)
    for given, (number, found) in enumerate(reading):
        if isinstance(found, Damage) and isinstance(blobs, Doubtful) and blobs.distrust(part.blob):
            yield from read_chunks(blobs, step, part, numbers[given:], to_the_end)
            return
        yield number, found


def _read_chunks(
    blobs: Readable, step: int, part: Part, numbers: Sequence[int], to_the_end: bool
) -> Iterator[tuple[int, bytes | Damage]]:
    if not numbers and not to_the_end:
        return
    try:
        with blobs.open(part.blob) as stream:
            for number in numbers:
                yield number, _read(stream, step, part, number)
            if to_the_end and (extra := _surplus(stream, part)):
                what = f"its blob is {extra} bytes longer than it was"
                yield -1, Damage(step, part.rank, None, (), what, part.blob)
    except NotFound:
        names = dict.fromkeys(name for chunk in part.chunks for name in chunk.tensors)
        what = f"its blob {short(part.blob)}… is missing"
        yield -1, Damage(step, part.rank, None, tuple(names), what, part.blob)


def _read(stream: BinaryIO, step: int, part: Part, number: int) -> bytes | Damage:
    chunk = part.chunks[number]
    try:
        stream.seek(chunk.offset)
        data = stream.read(chunk.nbytes)
    except OSError as error:
        if error.errno != errno.EIO:
            raise _unreadable(part, error) from None
        return _damage(step, part, number, "the disk cannot read it (EIO)")
    if len(data) < chunk.nbytes:
        what = f"it ends after {len(data)} of {chunk.nbytes} bytes"
        return _damage(step, part, number, what)
    if xxhash.xxh3_128_hexdigest(data) != chunk.xxh3:
        return _damage(step, part, number, "its bytes have changed")
    return data


def _damage(step: int, part: Part, number: int, what: str) -> Damage:
    chunk: Chunk = part.chunks[number]
    return Damage(step, part.rank, number, tuple(chunk.tensors), what, part.blob)


def _surplus(stream: BinaryIO, part: Part) -> int:
    try:
        return max(0, stream.seek(0, 2) - part.nbytes)
    except OSError as error:
        raise _unreadable(part, error) from None


def _unreadable(part: Part, error: OSError) -> Unavailable:
    return Unavailable(
        f"blob {short(part.blob)}… cannot be read: {error.strerror or error}",
        "See that the disk or store of the blobs answers, then try again.",
        blob=part.blob,
        rank=part.rank,
    )
