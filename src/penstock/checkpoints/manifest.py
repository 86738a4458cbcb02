"""The manifest: one JSON blob that names a checkpoint's parts and says what lies where in them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.base.errors import BadInput, Damaged, NewerSchema
from penstock.base.hashing import canonical_json, is_digest
from penstock.blobs import Blobs
from penstock.checkpoints.arrays import Entry
from penstock.checkpoints.boxes import covers, whole
from penstock.checkpoints.chunks import Chunk
from penstock.checkpoints.layout import BOXED, FORMAT, Piece, boxes_of
from penstock.checkpoints.state import decode, encode


@dataclass(frozen=True, slots=True)
class TreeRecord:
    """A stored tree: its structure (see `state`) and the leaves whose bytes lie in the parts."""

    structure: Any
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """What one rank wrote: a blob of `nbytes` bytes, the pieces in it, the chunks that cover it."""

    rank: int
    blob: str
    nbytes: int
    own: TreeRecord
    pieces: tuple[Piece, ...]
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checkpoint. parts: in the order of ranks; extra: what `assemble` was given."""

    run_id: str
    step: int
    generation: int
    world_size: int
    shared: TreeRecord
    parts: tuple[Part, ...]
    extra: dict[str, Any]

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts)

    @property
    def blobs(self) -> list[str]:
        """Digests of the parts' blobs, each once."""
        return list(dict.fromkeys(part.blob for part in self.parts))


def assemble(
    run_id: str,
    step: int,
    generation: int,
    world_size: int,
    parts: Sequence[dict[str, Any]],
    extra: dict[str, Any],
) -> tuple[bytes, list[str]]:
    """Join what `persist` returned on every rank.

    extra    small tree without tensors: data cursors, code digest, metrics
    returns  (the manifest's bytes, to be put as a blob; digests of the blobs that it names)
    Raises BadInput when parts are missing, doubled, of another world size, or of ranks whose
    shared trees differ; CannotTravel when `extra` holds what JSON cannot.
    """
    ordered = sorted(parts, key=lambda part: int(part["rank"]))
    _check_parts(step, world_size, ordered)
    shared = ordered[0]["shared"]
    _check_cover(step, shared["entries"], ordered)
    data = {
        "kind": "checkpoint",
        "format": BOXED if _has_boxes(ordered) else FORMAT,
        "run_id": run_id,
        "step": step,
        "generation": generation,
        "world_size": world_size,
        "shared": shared,
        "parts": [
            {key: part[key] for key in ("rank", "blob", "nbytes", "own", "pieces", "chunks")}
            for part in ordered
        ],
        "extra": _encode_extra(extra),
    }
    return canonical_json(data), list(dict.fromkeys(part["blob"] for part in ordered))


def _check_parts(step: int, world_size: int, ordered: list[dict[str, Any]]) -> None:
    ranks = [part["rank"] for part in ordered]
    sizes = {part["world_size"] for part in ordered}
    if ranks != list(range(world_size)) or sizes != {world_size}:
        raise BadInput(
            f"checkpoint {step} of {world_size} ranks cannot be assembled from parts of ranks "
            f"{ranks}, written for world sizes {sorted(sizes)}",
            "Give the parts of all ranks of one generation, each once.",
            step=step,
            ranks=ranks,
            world_size=world_size,
        )
    first = ordered[0]["agreement"]
    for part in ordered[1:]:
        if (other := part["agreement"]) != first:
            apart = sorted(k for k in {*first, *other} if first.get(k) != other.get(k))
            raise BadInput(
                f"ranks 0 and {part['rank']} disagree at step {step} about the shared state: "
                f"{', '.join(apart)}",
                "Track per-rank values as the rank's own state; what all ranks share must be "
                "equal in names, shapes, dtypes and plain values.",
                step=step,
                rank=part["rank"],
                keys=apart,
            )


def _check_cover(step: int, entries: list[dict[str, Any]], ordered: list[dict[str, Any]]) -> None:
    """Every byte of every shared entry lies in exactly one part."""
    pieces: list[list[Piece]] = [[] for _ in entries]
    for part in ordered:
        for piece in part["pieces"]:
            if piece["tree"] == "shared":
                pieces[piece["entry"]].append(Piece.from_dict(piece))
    for entry, found in zip(entries, pieces, strict=True):
        count = sum(piece.nbytes for piece in found)
        if count != entry["nbytes"] or not _is_cover(entry, found):
            raise BadInput(
                f"checkpoint {step} has {count} of {entry['nbytes']} bytes of {entry['name']}",
                "Give parts whose plans were made from one and the same shared state.",
                step=step,
                tensor=entry["name"],
            )


def _is_cover(entry: dict[str, Any], pieces: list[Piece]) -> bool:
    """Whether the pieces, whose sizes add up to the entry's, have every byte of it once."""
    if any(piece.box is not None for piece in pieces):
        shape = tuple(entry["shape"])
        itemsize = entry["nbytes"] // math.prod(shape)
        return covers(shape, [box for each in pieces for _, box in boxes_of(each, shape, itemsize)])
    end = 0
    for piece in sorted(pieces, key=lambda piece: piece.start):
        if piece.start != end:
            return False
        end += piece.nbytes
    return True


def _has_boxes(parts: Sequence[dict[str, Any]]) -> bool:
    return any("box" in piece for part in parts for piece in part["pieces"])


def _encode_extra(extra: dict[str, Any]) -> Any:
    encoded = encode(extra, "extra")
    if encoded.entries:
        name = encoded.entries[0].name
        raise BadInput(
            f"{name} is too large for a manifest",
            "Put tensors, arrays and long bytes into the state, and only small values into extra.",
            path=name,
        )
    return encoded.structure


class Gets(Protocol):
    """A blob store, or copies before one."""

    def get(self, digest: str) -> bytes: ...


def read_manifest(blobs: Gets, digest: str) -> Manifest:
    """Read and check. Raises NotFound, Damaged, NewerSchema."""
    return parse_manifest(blobs.get(digest), digest)


def relabelled(blobs: Blobs, digest: str, run_id: str) -> bytes:
    """The manifest of the same state as another run's beginning: its id, and generation 0, which
    is before that of any owner. Raises NotFound, Damaged, NewerSchema."""
    data = blobs.get(digest)
    parse_manifest(data, digest)
    return canonical_json({**json.loads(data), "run_id": run_id, "generation": 0})


def parse_manifest(data: bytes, name: str = "a manifest") -> Manifest:
    """Parse a manifest's bytes. `name` is what errors call it. Raises Damaged, NewerSchema."""
    try:
        raw = json.loads(data)
        kind, form = raw["kind"], raw["format"]
        if kind == "checkpoint" and isinstance(form, int) and form > BOXED:
            raise NewerSchema(
                f"{name} is a checkpoint of format {form}; this Penstock knows {BOXED}",
                "Upgrade Penstock to the version that wrote it; nothing was changed.",
                format=form,
                known=BOXED,
            )
        if kind != "checkpoint" or form not in (FORMAT, BOXED):
            raise ValueError(f"kind {kind!r}, format {form!r}")
        return _manifest(raw)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(
            f"{name} is not the manifest of a checkpoint: {type(error).__name__} {error}",
            "Use another checkpoint; this one was not written by Penstock, or was altered.",
            manifest=name,
        ) from None


def _manifest(raw: dict[str, Any]) -> Manifest:
    manifest = Manifest(
        run_id=raw["run_id"],
        step=raw["step"],
        generation=raw["generation"],
        world_size=raw["world_size"],
        shared=_tree(raw["shared"]),
        parts=tuple(_part(part) for part in raw["parts"]),
        extra=decode(raw["extra"], []),
    )
    if [part.rank for part in manifest.parts] != list(range(manifest.world_size)):
        raise ValueError("its parts are not those of its ranks")
    for part in manifest.parts:
        _check_part(manifest, part)
    return manifest


def _tree(raw: dict[str, Any]) -> TreeRecord:
    return TreeRecord(raw["structure"], tuple(Entry.from_dict(entry) for entry in raw["entries"]))


def _part(raw: dict[str, Any]) -> Part:
    return Part(
        rank=raw["rank"],
        blob=raw["blob"],
        nbytes=raw["nbytes"],
        own=_tree(raw["own"]),
        pieces=tuple(Piece.from_dict(piece) for piece in raw["pieces"]),
        chunks=tuple(Chunk(**chunk) for chunk in raw["chunks"]),
    )


def _check_part(manifest: Manifest, part: Part) -> None:
    """Everything lies where it can lie, so that readers may index without looking again."""
    if not is_digest(part.blob):
        raise ValueError(f"part {part.rank} names no blob")
    end = 0
    for chunk in part.chunks:
        if chunk.offset != end or chunk.nbytes <= 0:
            raise ValueError(f"the chunks of part {part.rank} do not follow each other")
        end += chunk.nbytes
    if end != part.nbytes:
        raise ValueError(f"the chunks of part {part.rank} do not cover it")
    end = 0
    for piece in part.pieces:
        entry = {"shared": manifest.shared, "own": part.own}[piece.tree].entries[piece.entry]
        inside = piece.start >= 0 and piece.start + piece.nbytes <= _room(piece, entry)
        if piece.entry < 0 or piece.offset < end or piece.nbytes <= 0 or not inside:
            raise ValueError(f"part {part.rank} has bytes of {entry.name} where there are none")
        end = piece.offset + piece.nbytes
    if end > part.nbytes:
        raise ValueError(f"the pieces of part {part.rank} reach past its end")


def _room(piece: Piece, entry: Entry) -> int:
    """Bytes that a piece may lie in: those of its entry, or of its box. Raises ValueError."""
    if piece.box is None:
        return entry.nbytes
    if whole(entry.shape).meet(piece.box) != piece.box:
        raise ValueError(f"{entry.name} has no such box")
    return piece.box.volume * (entry.nbytes // math.prod(entry.shape))
