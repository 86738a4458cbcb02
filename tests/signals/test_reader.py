"""Reducing over ranks and generations, and sealing into the blob store."""

from __future__ import annotations

import math
import os
import signal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.base.errors import BadInput, Damaged, NotFound
from penstock.blobs import open_blobs
from penstock.signals import Emitter, read_scalars, read_texts, reduce_scalars, seal, trim
from penstock.signals.newest import Newest
from penstock.signals.segment import SIZE

ROW = st.tuples(
    st.integers(0, 4),
    st.sampled_from(["loss", "acc", "ä"]),
    st.floats(-1e6, 1e6),
    st.integers(0, 2),
    st.integers(1, 3),
)


def table(rows) -> pa.Table:
    names = ["step", "name", "value", "rank", "generation"]
    types = [pa.int64(), pa.string(), pa.float64(), pa.int32(), pa.int64()]
    columns = list(zip(*rows, strict=True)) or [[]] * 5
    return pa.table(
        {n: pa.array(list(c), t) for n, c, t in zip(names, columns, types, strict=True)}
    )


def plain(rows):
    """The law in its plainest words."""
    result = []
    for step, name in sorted({(row[0], row[1]) for row in rows}):
        mine = [row for row in rows if row[:2] == (step, name)]
        newest = max(row[4] for row in mine)
        of_rank = {row[3]: row[2] for row in mine if row[4] == newest}
        result.append((step, name, sum(of_rank[r] for r in sorted(of_rank)) / len(of_rank)))
    return result


@settings(deadline=None)
@given(rows=st.lists(ROW, max_size=60))
def test_the_newest_generation_wins_and_ranks_are_averaged(rows):
    reduced = reduce_scalars(table(rows))
    assert reduced.schema.names == ["step", "name", "value"]
    got = [tuple(row.values()) for row in reduced.to_pylist()]
    expected = plain(rows)
    assert [row[:2] for row in got] == [row[:2] for row in expected]
    for mine, theirs in zip(got, expected, strict=True):
        assert mine[2] == pytest.approx(theirs[2], rel=1e-12, abs=1e-9)


@settings(deadline=None)
@given(
    rows=st.lists(ROW, max_size=40, unique_by=lambda r: (r[0], r[1], r[3], r[4])), data=st.data()
)
def test_the_order_of_reading_does_not_matter(rows, data):
    mixed = data.draw(st.permutations(rows))
    assert reduce_scalars(table(rows)).equals(reduce_scalars(table(mixed)))


def test_a_value_that_is_not_a_number_stays_visible():
    rows = [(1, "loss", math.nan, 0, 1), (1, "loss", 1.0, 1, 1), (2, "loss", 2.0, 0, 1)]
    assert math.isnan(reduce_scalars(table(rows))["value"][0].as_py())
    assert reduce_scalars(table(rows))["value"][1].as_py() == 2.0


def fill(emitter: Emitter, steps: range) -> None:
    for step in steps:
        emitter.scalar(step, "loss", float(step))


@pytest.fixture
def blobs():
    return open_blobs("memory://")


def test_sealed_signals_read_like_the_folder(folder, emitter, blobs):
    for rank in range(2):
        one = emitter(rank=rank, segment_bytes=4096)
        fill(one, range(300))
        one.text(1, "note", "x")
        one.close()
    digests = seal(folder, blobs)
    whole = read_scalars(folder)
    assert whole.num_rows == 600
    assert read_scalars(digests, blobs).equals(whole)
    assert read_scalars([folder, *digests], blobs).equals(whole)  # nothing counts twice


def test_sealing_again_gives_the_same_and_converts_nothing_again(
    folder, emitter, blobs, monkeypatch
):
    one = emitter(segment_bytes=4096)
    fill(one, range(300))
    one.close()
    digests = seal(folder, blobs)
    again = open_blobs("memory://")
    assert seal(folder, again) == digests  # another store: converted anew, to the same bytes
    monkeypatch.setattr("penstock.signals.sealing.read_segment", None)
    assert seal(folder, blobs) == digests


def test_an_open_segment_is_left_out_unless_it_is_asked_for(folder, emitter, blobs):
    one = emitter()
    fill(one, range(10))
    assert seal(folder, blobs) == []
    (half,) = seal(folder, blobs, only_closed=False)
    fill(one, range(10, 20))
    one.close()
    (whole,) = seal(folder, blobs)
    assert half != whole
    assert read_scalars([half, whole], blobs)["step"].to_pylist() == list(range(20))


def test_what_a_dead_writer_preallocated_is_given_back_and_no_record_is_lost(folder, emitter):
    alive = emitter(rank=0)
    fill(alive, range(5))
    child = os.fork()
    if child == 0:
        try:
            dying = Emitter(folder, "run-a", 1, 1)
            fill(dying, range(50))
            dying.scalar(50, "loss", 0.0)
            dying.text(51, "note", "ends in zeros" + "\0" * 30_000)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(70)
    os.waitpid(child, 0)
    before, texts = read_scalars(folder), read_texts(folder)
    sizes = {path.name: path.stat().st_size for path in folder.glob("*.seg")}
    assert len(sizes) == 2 and set(sizes.values()) == {SIZE}
    freed = trim(folder)
    assert freed > SIZE * 0.9
    assert sum(path.stat().st_size for path in folder.glob("*.seg")) == 2 * SIZE - freed
    assert read_scalars(folder).equals(before) and before.num_rows == 56
    assert read_texts(folder).equals(texts) and texts.num_rows == 1
    assert trim(folder) == 0
    fill(alive, range(5, 10))  # who lives was left alone
    assert read_scalars(folder).num_rows == 61
    alive.close()


def test_segments_without_records_and_missing_folders_give_nothing(folder, emitter, blobs):
    assert seal(folder, blobs) == []
    emitter().close()
    assert seal(folder, blobs) == []


def test_a_digest_that_holds_no_signals_is_one_clear_error(blobs):
    with pytest.raises(Damaged, match="does not hold sealed signals"):
        read_scalars([blobs.put(b"something else")], blobs)
    with pytest.raises(NotFound):
        read_scalars(["sha256:" + "0" * 64], blobs)
    with pytest.raises(BadInput, match="blob store"):
        read_scalars(["sha256:" + "0" * 64])


def test_reading_a_segment_by_its_path(folder, emitter):
    one = emitter()
    fill(one, range(5))
    (path,) = folder.iterdir()
    assert read_scalars(path).num_rows == read_scalars([path, folder]).num_rows == 5


def test_the_newest_values_are_those_of_the_rank_and_its_last_segment(folder, emitter):
    newest = Newest(folder)
    assert newest.look() == {}
    emitter(rank=1).scalars(1, {"loss": 9.0})
    first = emitter()
    first.scalars(1, {"loss": 3.0, "rate": 0.5})
    assert newest.look() == {"loss": 3.0, "rate": 0.5}
    first.scalars(2, {"loss": 2.0})
    assert newest.look() == newest.look() == {"loss": 2.0, "rate": 0.5}
    emitter(generation=2).scalars(1, {"loss": 4.0})
    assert newest.look() == {"loss": 4.0, "rate": 0.5}
