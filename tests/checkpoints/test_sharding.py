"""Distributed tensors: what any mesh wrote is the same tensor on any other mesh, and whole."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import penstock.checkpoints as ck
from penstock.base.errors import CannotTravel, Damaged
from penstock.blobs import Blobs, open_blobs
from penstock.checkpoints import boxes, layout
from penstock.checkpoints.arrays import Entry
from penstock.checkpoints.sharding import Sharding
from penstock.checkpoints.state import Encoded, encode

Placed = tuple[list[int], list[int | None]]  # shape of a mesh, which dimension each of its cuts

shapes = st.lists(st.integers(0, 7), max_size=3).map(tuple)
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.uint8, torch.bool])


@st.composite
def placings(draw: st.DrawFn, shape: tuple[int, ...]) -> Placed:
    mesh = draw(st.sampled_from([[1], [2], [3], [4], [2, 2], [1, 3], [2, 1]]))
    return mesh, [draw(st.sampled_from([None, *range(len(shape))])) for _ in mesh]


def places(mesh: list[int]) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, mesh)))


def sharding(shape: tuple[int, ...], placed: Placed, place: tuple[int, ...]) -> Sharding:
    mesh, dims = placed
    box = boxes.local_box(shape, mesh, dims, place)
    return Sharding(shape, box, *boxes.replica(mesh, dims, place), wrap=lambda part: part)


def write(blobs: Blobs, tensors: dict[str, torch.Tensor], placed: dict[str, Placed]) -> ck.Manifest:
    """As ranks would whose meshes have as many places; what is not placed is plain."""
    worlds = {math.prod(mesh) for mesh, _ in placed.values()}
    (world,) = worlds
    parts = []
    for rank in range(world):
        both = encode(tensors, "shared")
        for number, name in enumerate(tensors):
            if name in placed:
                shape = tuple(tensors[name].shape)
                how = sharding(shape, placed[name], places(placed[name][0])[rank])
                assert how.box is not None
                both.shardings[number] = how
                both.sources[number] = tensors[name][how.box.slices]
        plan = layout.laid_out(both, encode({"rank": rank}, "own"), rank, world)
        buffer = memoryview(bytearray(plan.nbytes))
        plan.copy_into(buffer)
        parts.append(ck.persist(buffer, plan.index, blobs))
    data, _ = ck.assemble("run-a", 7, 1, world, parts, {})
    stored = [p for part in parts for p in part["pieces"] if p["tree"] == "shared"]
    assert sum(p["nbytes"] for p in stored) == sum(t.nbytes for t in tensors.values())  # each once
    return ck.parse_manifest(data)


def numbers(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.randint(0, 200, shape).to(dtype)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return (one.dtype, one.shape) == (other.dtype, other.shape) and torch.equal(one, other)


@pytest.mark.parametrize("split_above", [1 << 20, 64])
@given(data=st.data(), shape=shapes, dtype=dtypes)
def test_what_a_mesh_wrote_loads_on_any_other_and_whole(split_above, data, shape, dtype) -> None:
    """At every place of the other mesh, though shards are uneven, empty, or cut across rows."""
    blobs = open_blobs("memory://")
    tensors = {"w": numbers(shape, dtype), "plain": numbers((5, 3), torch.float32)}
    written, read = data.draw(placings(shape)), data.draw(placings(shape))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "SPLIT_ABOVE", split_above)
        manifest = write(blobs, tensors, {"w": written})
    full = ck.load(blobs, manifest, 0, 1).shared
    assert all(same(full[name], tensors[name]) for name in tensors)
    for place in places(read[0]):
        how = sharding(shape, read, place)
        assert how.box is not None

        def onto(entry: Entry, how: Sharding = how) -> Sharding | None:
            return how if entry.name == "shared.w" else None

        part = ck.load(blobs, manifest, 0, 1, onto).shared
        assert same(part["w"], tensors["w"][how.box.slices])
        assert same(part["plain"], tensors["plain"])


def test_only_bytes_of_the_own_part_are_read(memory: Blobs) -> None:
    tensors = {"w": torch.arange(4 << 20, dtype=torch.float32).reshape(4096, 1024)}
    manifest = write(memory, tensors, {"w": ([2], [0])})
    how = sharding((4096, 1024), ([4], [0]), (3,))
    with pytest.MonkeyPatch.context() as patch:
        read = count_reads(patch)
        part = ck.load(memory, manifest, 0, 4, lambda entry: how).shared["w"]
    assert torch.equal(part, tensors["w"][3072:])
    assert sum(read) == 4 << 20


def count_reads(patch: pytest.MonkeyPatch) -> list[int]:
    from penstock.checkpoints import filling

    read: list[int] = []
    real = filling.read_chunks

    def counting(*arguments: Any, **options: Any) -> Any:
        for number, data in real(*arguments, **options):
            read.append(len(data) if isinstance(data, bytes) else 0)
            yield number, data

    patch.setattr(filling, "read_chunks", counting)
    return read


def test_rows_keep_the_first_format_and_columns_need_the_second(memory: Blobs) -> None:
    """What the first Penstock could read it still can."""
    tensors = {"w": numbers((6, 4), torch.float32)}
    assert forms(memory, tensors, ([3], [0])) == (1, set())
    assert forms(memory, tensors, ([2], [None])) == (1, set())
    form, found = forms(memory, tensors, ([2], [1]))
    assert form == 2
    assert found == {((0, 0), (6, 2)), ((0, 2), (6, 2))}


def forms(blobs: Blobs, tensors: dict[str, torch.Tensor], placed: Placed) -> tuple[int, set[Any]]:
    manifest = write(blobs, tensors, {"w": placed})
    pieces = [piece for part in manifest.parts for piece in part.pieces]
    found = {(p.box.offsets, p.box.sizes) for p in pieces if p.box is not None}
    return 2 if found else 1, found


def test_damage_in_a_shard_names_rank_and_tensor(blobs: Blobs) -> None:
    tensors = {
        "a.weight": numbers((64, 64), torch.float32),
        "b.weight": numbers((64, 64), torch.float32),
    }
    placed = ([2], [1])
    manifest = write(blobs, tensors, dict.fromkeys(tensors, placed))
    at = next(piece.offset for piece in manifest.parts[1].pieces if piece.entry == 1)
    path = blobs.path(manifest.parts[1].blob)
    assert path is not None
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at + 100)
        file.write(b"\xff\xff\xff\xff")
    how = sharding((64, 64), placed, (0,))
    assert ck.load(blobs, manifest, 0, 2, lambda entry: how)  # the other rank's part is not read
    with pytest.raises(Damaged) as caught:
        ck.load(blobs, manifest, 0, 1)
    damage = caught.value.facts["damage"]
    assert (damage["rank"], damage["tensors"]) == (1, ["shared.b.weight"])


def test_own_state_is_not_distributed() -> None:
    mine = Encoded({"entry": 0}, [Entry("own.w", "tensor", "float32", (2,), 8)], [torch.zeros(1)])
    mine.shardings[0] = sharding((2,), ([2], [0]), (0,))
    with pytest.raises(CannotTravel, match=r"own\.w cannot be put.*: it is distrib"):
        layout.laid_out(encode({}, "shared"), mine, 0, 2)


@pytest.mark.torch
@pytest.mark.timeout(120)
@pytest.mark.parametrize("sizes", ["21", pytest.param("4231", marks=pytest.mark.long)])
def test_gangs_of_other_sizes_hand_a_state_on_without_a_bit_changed(sizes: str, tmp_path) -> None:
    """FSDP, replicas, slices of a mesh, columns: what each gang loads is what the first had."""
    script = [sys.executable, str(Path(__file__).with_name("mesh.py")), str(tmp_path), *sizes]
    out = subprocess.run(script, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stdout + out.stderr
    told = [line.split() for line in out.stdout.splitlines() if line.startswith("GANG")]
    assert [line[1] for line in told] == list(sizes)
    assert len({line[2] for line in told}) == 1  # replicas cost nothing
