"""The folder engine under faults: torn files, flipped bits, deaths, full and read-only disks."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.base.errors import Damaged, DiskFull, ReadOnly, Unavailable
from penstock.base.hashing import digest_bytes
from penstock.blobs import Blobs, open_blobs

Killer = Callable[[Callable[[], object], int], int]


@pytest.fixture
def killed(in_child: Callable[..., int]) -> Killer:
    """`killed(work, line)`: the wait status of a child killed before that line of the engine."""
    return lambda work, line: in_child(work, die_at=line, part="blobs/local.py")


def _file(blobs: Blobs, digest: str) -> Path:
    path = blobs.path(digest)
    assert path is not None
    return path


def _scratch(blobs: Blobs) -> list[Path]:
    folder = Path(blobs.url.removeprefix("file://")) / "tmp"
    return list(folder.iterdir()) if folder.exists() else []


def test_opening_and_asking_creates_nothing(tmp_path: Path) -> None:
    blobs = open_blobs(f"file://{tmp_path}/blobs")
    assert list(blobs.list()) == list(blobs.condemned()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_blob_lies_under_its_digest_and_cannot_be_written(local: Blobs) -> None:
    digest = local.put(b"x")
    path = _file(local, digest)
    assert path.parent.name + path.name == digest.removeprefix("sha256:")
    assert path.stat().st_mode & 0o777 == 0o444
    assert _scratch(local) == []


def test_putting_an_existing_blob_does_not_write_it_again(local: Blobs) -> None:
    path = _file(local, local.put(b"once"))
    before = path.stat()
    local.put(b"once")
    local.put([b"once"])
    assert path.stat().st_ino == before.st_ino


def test_a_flipped_bit_is_named(local: Blobs) -> None:
    digest = local.put(bytes(1000))
    path = _file(local, digest)
    path.chmod(0o644)
    with path.open("r+b") as stream:
        stream.seek(500)
        stream.write(b"\x01")
    for question in (local.get, local.verify):
        with pytest.raises(Damaged) as caught:
            question(digest)
        assert digest in str(caught.value)
        assert caught.value.facts["digest"] == digest


def test_a_torn_blob_is_healed_by_the_next_put(local: Blobs) -> None:
    digest = local.put(b"whole content")
    os.truncate(_file(local, digest), 3)
    assert local.put(b"whole content") == digest
    assert local.get(digest) == b"whole content"


@pytest.mark.parametrize(
    "data", [b"whole content", [b"whole", b" content"]], ids=["whole", "parts"]
)
def test_damage_of_the_same_size_is_healed_by_a_put_that_mends(local: Blobs, data: object) -> None:
    digest = local.put(data)  # type: ignore[arg-type]
    path = _file(local, digest)
    path.chmod(0o644)
    path.write_bytes(b"hole content!")
    assert local.put(data) == digest  # type: ignore[arg-type]
    with pytest.raises(Damaged):
        local.get(digest)
    assert local.put(data, mend=True) == digest  # type: ignore[arg-type]
    assert local.get(digest) == b"whole content"


def test_names_that_are_no_blobs_are_not_listed(local: Blobs) -> None:
    digest = local.put(b"x")
    path = _file(local, digest)
    (path.parent / "notes.txt").write_text("mine")
    (path.parent.parent / "README").write_text("mine")
    assert [stat.digest for stat in local.list()] == [digest]


def test_a_missing_file_to_put_is_one_clear_error(local: Blobs, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="nowhere"):
        local.put_file(tmp_path / "nowhere")


@pytest.mark.faults
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_writer_killed_at_any_line_leaves_nothing_half_visible(
    local: Blobs, killed: Killer, streamed: bool
) -> None:
    deaths = 0
    for line in range(1, 500):
        data = b"%d" % line * 1000
        pieces: object = [data[:1500], data[1500:]] if streamed else data
        status = killed(lambda it=pieces: local.put(it), line)  # type: ignore[misc]
        for stat in local.list():
            local.verify(stat.digest)
        if status == 0:
            break
        assert os.WTERMSIG(status) == 9
        deaths += 1
    assert status == 0
    assert deaths > 15
    assert digest_bytes(data) in {stat.digest for stat in local.list()}
    assert len(_scratch(local)) > 0
    open_blobs(local.url)
    assert _scratch(local) == [], "what dead writers left is removed at the next opening"


@pytest.mark.faults
def test_a_remover_killed_at_any_line_loses_nothing(local: Blobs, killed: Killer) -> None:
    digest = local.put(b"kept")
    for step in (local.condemn, local.restore):
        for line in range(1, 200):
            status = killed(lambda step=step: step(digest), line)  # type: ignore[misc]
            assert local.get(digest) == b"kept"
            if status == 0:
                break
        assert status == 0


@pytest.mark.faults
def test_writers_killed_at_random_points_leave_whole_blobs(
    local: Blobs, killed: Killer, chance: random.Random
) -> None:
    def write_many() -> None:
        for n in range(20):
            local.put(bytes([n]) * (n * 997))

    for _ in range(25):
        killed(write_many, chance.randrange(1, 700))
        for stat in local.list():
            local.verify(stat.digest)


def test_the_scratch_of_a_live_writer_is_left_alone(local: Blobs) -> None:
    seen: list[Path] = []

    def pieces() -> object:
        yield b"first"
        open_blobs(local.url)
        seen.extend(_scratch(local))
        yield b"second"

    assert local.get(local.put(pieces())) == b"firstsecond"  # type: ignore[arg-type]
    assert len(seen) == 1


def test_foreign_files_in_the_scratch_folder_are_left_alone(local: Blobs, tmp_path: Path) -> None:
    local.put(b"x")
    for name in ("notes", "elsewhere~boot~1~1~0", "a~b"):
        (tmp_path / "blobs" / "tmp" / name).write_text("not ours to judge")
    open_blobs(local.url)
    assert len(_scratch(local)) == 3


@pytest.mark.root
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_full_disk_is_said_and_nothing_is_visible(small_disk: Path, streamed: bool) -> None:
    blobs = open_blobs(f"file://{small_disk}/blobs")
    kept = blobs.put(b"small")
    large = os.urandom(1 << 20)
    with pytest.raises(DiskFull):
        blobs.put([large[:100], large[100:]] if streamed else large)
    assert [stat.digest for stat in blobs.list()] == [kept]
    assert _scratch(blobs) == [], "the room is given back"
    blobs.put(b"there is room for this")


@pytest.mark.root
def test_a_read_only_disk_is_read_and_not_written(small_disk: Path) -> None:
    url = f"file://{small_disk}/blobs"
    digest = open_blobs(url).put(b"readable")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    blobs = open_blobs(url)
    assert blobs.get(digest) == b"readable"
    for change in (
        lambda: blobs.put(b"new"),
        lambda: blobs.put([b"new"]),
        lambda: blobs.condemn(digest),
    ):
        with pytest.raises(ReadOnly):
            change()
    assert blobs.exists(digest)
