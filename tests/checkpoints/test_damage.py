"""A hundred random faults: each found, named by its tensors, and an older checkpoint used."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from unittest.mock import ANY

import pytest
import torch

import penstock.checkpoints as ck
from penstock.base.errors import Damaged, Unavailable
from penstock.base.hashing import PREFIX
from penstock.blobs import Blobs
from penstock.checkpoints.manifest import Part
from penstock.records import Checkpoint


def file_of(blobs: Blobs, digest: str) -> Path:
    path = blobs.path(digest)
    assert path is not None
    return path


def flip(path: Path, chance: random.Random) -> int:
    """Flip one bit; returns the place of its byte."""
    data = bytearray(path.read_bytes())
    at = chance.randrange(len(data))
    data[at] ^= 1 << chance.randrange(8)
    rewrite(path, data)
    return at


def rewrite(path: Path, data: bytes | bytearray) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def names_at(part: Part, at: int) -> set[str]:
    (chunk,) = [c for c in part.chunks if c.offset <= at < c.offset + c.nbytes]
    return set(chunk.tensors)


@pytest.fixture
def saved(blobs, save, trained) -> Callable[[], list[Checkpoint]]:
    """Checkpoints 10 and 20 of two ranks, written anew where they were damaged."""

    def run() -> list[Checkpoint]:
        owns = [{"rng": torch.full((500,), rank)} for rank in range(2)]
        return [save(blobs, trained(step), owns, step=step) for step in (20, 10)]

    return run


@pytest.mark.parametrize("round_", range(5))
def test_a_hundred_faults_are_found_and_named_and_an_older_checkpoint_is_used(
    blobs, saved, chance, round_
) -> None:
    for _ in range(20):
        rows = saved()
        manifest = ck.read_manifest(blobs, rows[0].digest)
        part = chance.choice(manifest.parts)
        path = file_of(blobs, part.blob)
        everything = {name for chunk in part.chunks for name in chunk.tensors}
        match chance.choice(["flip", "flip", "truncate", "remove"]):
            case "flip":
                wanted = names_at(part, flip(path, chance))
            case "truncate":
                size = chance.randrange(part.nbytes)
                rewrite(path, path.read_bytes()[:size])
                rest = [c for c in part.chunks if c.offset + c.nbytes > size]
                wanted = {name for chunk in rest for name in chunk.tensors}
            case _:
                path.unlink()
                wanted = everything
        damages = ck.verify(rows[0], blobs)
        assert {name for damage in damages for name in damage.tensors} == wanted
        assert {(damage.step, damage.rank) for damage in damages} == {(20, part.rank)}
        found = ck.newest_whole(rows, blobs)
        assert found.checkpoint == rows[1]
        assert found.damages == damages


def test_a_rank_that_meets_damage_says_which_tensor(blobs, saved, chance) -> None:
    row = saved()[0]
    manifest = ck.read_manifest(blobs, row.digest)
    part = manifest.parts[1]
    at = flip(file_of(blobs, part.blob), chance)
    owns = any(name.startswith("own.") for name in names_at(part, at))
    reader = 1 if owns else chance.randrange(2)
    with pytest.raises(Damaged, match="rank 1 of checkpoint 20") as caught:
        ck.load(blobs, manifest, reader, 2)
    assert set(caught.value.facts["damage"]["tensors"]) == names_at(part, at)


def test_damage_in_another_ranks_own_state_does_not_stop_this_rank(blobs, saved) -> None:
    manifest = ck.read_manifest(blobs, saved()[0].digest)
    part = manifest.parts[1]
    (piece,) = [piece for piece in part.pieces if piece.tree == "own"]
    path = file_of(blobs, part.blob)
    data = bytearray(path.read_bytes())
    data[piece.offset] ^= 1
    rewrite(path, data)
    assert ck.load(blobs, manifest, 0, 2).own is not None
    with pytest.raises(Damaged, match=r"own\.rng"):
        ck.load(blobs, manifest, 1, 2)


@pytest.mark.parametrize("fault", ["flip", "remove"])
def test_a_damaged_manifest_is_named_and_passed_over(blobs, saved, chance, fault) -> None:
    rows = saved()
    path = file_of(blobs, rows[0].digest)
    if fault == "flip":
        flip(path, chance)
    else:
        path.unlink()
    found = ck.newest_whole(rows, blobs)
    assert found.checkpoint == rows[1]
    (damage,) = found.damages
    assert (damage.step, damage.rank, damage.chunk) == (20, None, None)
    assert "manifest of checkpoint 20" in str(damage)


def test_a_row_that_points_at_another_checkpoint_is_damage(blobs, saved) -> None:
    new, old = saved()
    wrong = Checkpoint("run-a", 20, old.digest, 1, 0.0, 0)
    (damage,) = ck.verify(wrong, blobs)
    assert "belongs to run run-a, step 10" in damage.what
    assert ck.verify(new, blobs) == []


def test_a_blob_with_more_bytes_than_it_had_is_damage(blobs, saved) -> None:
    row = saved()[0]
    part = ck.read_manifest(blobs, row.digest).parts[0]
    path = file_of(blobs, part.blob)
    rewrite(path, path.read_bytes() + b"more")
    (damage,) = ck.verify(row, blobs)
    assert "4 bytes longer" in damage.what


def test_nothing_whole_is_said_with_all_the_damage(blobs, saved) -> None:
    rows = saved()
    for row in rows:
        for part in ck.read_manifest(blobs, row.digest).parts:
            file_of(blobs, part.blob).unlink()
    found = ck.newest_whole(rows, blobs)
    assert (found.checkpoint, found.manifest) == (None, None)
    assert [(damage.step, damage.rank) for damage in found.damages] == [
        (20, 0),
        (20, 1),
        (10, 0),
        (10, 1),
    ]


def test_the_same_step_computed_again_is_whole_again(blobs, saved, chance) -> None:
    """Bit-equal training gives the damaged blob's own address: the bytes must be written anew."""
    rows = saved()
    for part in ck.read_manifest(blobs, rows[0].digest).parts:
        flip(file_of(blobs, part.blob), chance)
    assert ck.newest_whole(rows, blobs).checkpoint == rows[1]
    again = saved()
    assert again[0].digest == rows[0].digest
    assert ck.newest_whole(again, blobs) == ck.Found(again[0], ANY, [])
    assert list(blobs.condemned()) == []  # so that nothing can bring the damaged bytes back


def test_a_single_process_verifies_and_loads_in_one_pass(blobs, saved, chance, trained) -> None:
    rows = saved()
    part = ck.read_manifest(blobs, rows[0].digest).parts[0]
    shared = [piece for piece in part.pieces if piece.tree == "shared"]
    path = file_of(blobs, part.blob)
    data = bytearray(path.read_bytes())
    data[chance.randrange(shared[-1].offset)] ^= 4
    rewrite(path, data)
    loaded, damages = ck.load_newest(rows, blobs, 0, 2)
    assert loaded is not None
    assert (loaded.checkpoint, loaded.damages) == (rows[1], damages)
    assert [damage.step for damage in damages] == [20]
    assert ck.weights_digest(loaded.state.shared["model"]) == ck.weights_digest(
        trained(10)["model"]
    )


def test_no_checkpoints_are_no_damage(blobs) -> None:
    assert ck.newest_whole([], blobs) == ck.Found(None, None, [])
    assert ck.load_newest([], blobs, 0, 1) == (None, [])


def test_a_store_that_does_not_answer_is_no_damage(blobs, saved) -> None:
    """A run must not fall back because a disk was away for a minute."""
    rows = saved()
    with pytest.raises(Unavailable):
        ck.newest_whole(rows, Away(blobs))


class Away:
    """A store whose parts cannot be opened at the moment."""

    def __init__(self, blobs: Blobs) -> None:
        self.get = blobs.get

    def open(self, digest: str):
        assert digest.startswith(PREFIX)
        raise Unavailable("the store does not answer", "Try again.")
