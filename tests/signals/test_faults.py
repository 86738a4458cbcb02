"""SIGKILL at random points, torn files, and strangers in the folder."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.base.errors import Damaged
from penstock.blobs import open_blobs
from penstock.signals import Emitter, read_scalars, seal
from penstock.signals.segment import HEADER_BYTES, list_segments

SEED = int(os.environ.get("PENSTOCK_CHAOS_SEED", "0")) or random.SystemRandom().randrange(2**32)

WRITER = """
import sys
from pathlib import Path
from penstock.signals import Emitter
emitter = Emitter(Path(sys.argv[1]), "run-1", 0, 1, segment_bytes=16384)
step = 0
while True:
    emitter.scalar(step, "loss", float(step))
    step += 1
    if step % 50 == 0:
        sys.stdout.write(f"{step}\\n")  # all before this number have been told
        sys.stdout.flush()
"""


@pytest.mark.faults
def test_sigkill_at_a_random_point_loses_nothing_that_was_told(tmp_path):
    print(f"PENSTOCK_CHAOS_SEED={SEED}")
    chance = random.Random(SEED)
    for number in range(6):
        folder = tmp_path / str(number)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        lines = chance.randrange(1, 120)
        for _ in range(lines):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        told = [int(line) for line in writer.stdout.read().splitlines() if line.strip()]
        writer.wait()
        table = read_scalars(folder)
        count = table.num_rows
        assert count >= max([lines * 50, *told[:-1]])
        assert table["step"].to_pylist() == list(range(count))
        assert table["value"].to_pylist() == [float(step) for step in range(count)]

        blobs = open_blobs("memory://")
        digests = seal(folder, blobs)  # the writer is dead, so its last segment is final
        files = len(list_segments(folder))
        assert files - 1 <= len(digests) <= files  # killed before the first record of the last
        assert read_scalars(digests, blobs).equals(table)


@pytest.fixture(scope="module")
def segment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    emitter = Emitter(folder, "run-1", 0, 1, segment_bytes=4096)
    for step in range(60):
        emitter.scalar(step, "loss", float(step))
    emitter.close()
    return list_segments(folder)[0].read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(cut=st.integers(0, 4096))
def test_a_torn_segment_is_read_up_to_the_tear(tmp_path_factory, segment, cut):
    path = tmp_path_factory.mktemp("torn") / "000001-00000-00000.seg"
    path.write_bytes(segment[:cut])
    steps = read_scalars(path)["step"].to_pylist()
    assert steps == list(range(len(steps)))
    path.write_bytes(segment[:cut].ljust(4096, b"\0"))
    if cut == 0 or cut >= HEADER_BYTES:
        assert read_scalars(path)["step"].to_pylist() == steps


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_flipped_bit_ends_the_reading_there_and_invents_nothing(tmp_path_factory, segment, data):
    at = data.draw(st.integers(HEADER_BYTES, len(segment) - 1))
    broken = bytearray(segment)
    broken[at] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("flip") / "000001-00000-00000.seg"
    path.write_bytes(broken)
    steps = read_scalars(path)["step"].to_pylist()
    assert steps == list(range(len(steps)))
    assert len(steps) < 60


def test_a_file_that_is_no_segment_is_named(folder, emitter):
    emitter().scalar(1, "loss", 1.0)
    (folder / "000009-00000-00000.seg").write_bytes(b"x" * 300)
    with pytest.raises(Damaged, match="000009-00000-00000"):
        read_scalars(folder)


def test_files_of_others_are_left_alone(folder, emitter):
    emitter().scalar(1, "loss", 1.0)
    (folder / "notes.txt").write_text("x")
    (folder / "000009-00000-00000.seg").touch()  # its writer died before the header
    assert read_scalars(folder).num_rows == 1
