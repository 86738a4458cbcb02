"""Emitting: what was told is there, storage that fails is not felt, forks do not mix."""

from __future__ import annotations

import errno
import logging
import math
import mmap
import os
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.base.errors import BadInput
from penstock.signals import Emitter, read_scalars, read_spans, read_texts
from penstock.signals import emitter as emitting
from penstock.signals.segment import list_segments

STEPS = st.integers(-(2**63), 2**63 - 1)
NAMES = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=40)
VALUES = st.floats(width=64)


def same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    told=st.lists(st.tuples(STEPS, NAMES, VALUES), max_size=120), size=st.sampled_from([4096, 9000])
)
def test_everything_told_is_read_back_in_order(tmp_path_factory, told, size):
    folder = tmp_path_factory.mktemp("signals")
    emitter = Emitter(folder, "run-1", 3, 7, segment_bytes=size)
    for step, name, value in told:
        emitter.scalar(step, name, value)
    for table in (read_scalars(folder), (emitter.close(), read_scalars(folder))[1]):
        rows = table.to_pylist()
        assert [(row["step"], row["name"]) for row in rows] == [(s, n) for s, n, _ in told]
        assert all(same(row["value"], v) for row, (_, _, v) in zip(rows, told, strict=True))
        assert {(row["rank"], row["generation"]) for row in rows} <= {(3, 7)}
    assert emitter.dropped == 0


def test_the_columns_have_the_promised_types(folder, emitter):
    emitter().scalar(1, "loss", 0.5)
    types = {field.name: str(field.type) for field in read_scalars(folder).schema}
    assert types == {
        "step": "int64",
        "name": "string",
        "value": "double",
        "rank": "int32",
        "generation": "int64",
        "at": "double",
    }
    assert read_scalars(folder / "nowhere").num_rows == 0


def test_spans_and_texts_are_kept_beside_scalars(folder, emitter):
    one = emitter(rank=2)
    one.span("forward", 10.0, 12.5, step=4)
    one.text(5, "note", "größer")
    one.scalars(6, {"a": 1.0, "b": 2})
    assert read_spans(folder).to_pylist() == [
        {"step": 4, "name": "forward", "start": 10.0, "end": 12.5, "rank": 2, "generation": 1}
    ]
    (text,) = read_texts(folder).to_pylist()
    assert (text["step"], text["name"], text["text"]) == (5, "note", "größer")
    scalars = read_scalars(folder).to_pylist()
    assert [(row["name"], row["value"]) for row in scalars] == [("a", 1.0), ("b", 2.0)]
    assert len({row["at"] for row in scalars}) == 1


def test_a_reader_sees_what_a_writer_told_while_it_goes_on(folder, emitter):
    one = emitter()
    for step in range(100):
        one.scalar(step, "loss", 0.0)
        assert read_scalars(folder).num_rows == step + 1


def test_a_full_segment_is_followed_by_the_next_and_cut_to_what_it_holds(folder, emitter):
    one = emitter(segment_bytes=4096)
    for step in range(1000):
        one.scalar(step, "loss", 0.0)
    files = list_segments(folder)
    assert one.segments == len(files) == 10
    assert all(file.stat().st_size <= 4096 for file in files)
    assert files[-1].stat().st_size == 4096
    one.close()
    assert files[-1].stat().st_size < 4096
    assert read_scalars(folder)["step"].to_pylist() == list(range(1000))


def test_telling_makes_no_file_no_map_and_no_sync(folder, emitter, monkeypatch):
    """29,000 scalars fit one segment: one file and one map are made, before the first of them."""
    made = []
    monkeypatch.setattr(emitting.mmap, "mmap", counted(made, mmap.mmap))
    one = emitter()
    assert (one.segments, len(made)) == (1, 1)
    for name in ("open", "posix_fallocate", "truncate", "fsync", "fdatasync", "write"):
        monkeypatch.setattr(os, name, forbidden(name))
    for step in range(29_000):
        one.scalar(step, "loss", 0.0)
    monkeypatch.undo()
    assert (one.segments, one.dropped, len(made)) == (1, 0, 1)
    assert read_scalars(folder).num_rows == 29_000


def counted(made, call):
    def counting(*arguments, **options):
        made.append(arguments)
        return call(*arguments, **options)

    return counting


def forbidden(name):
    def refuse(*_, **__):
        raise AssertionError(f"os.{name} was called while telling")

    return refuse


def test_threads_may_tell_at_once(folder, emitter):
    one = emitter(segment_bytes=8192)

    def tell(name: str) -> None:
        for step in range(2000):
            one.scalar(step, name, 0.0)

    threads = [threading.Thread(target=tell, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = read_scalars(folder).to_pylist()
    for n in range(4):
        assert [row["step"] for row in rows if row["name"] == f"t{n}"] == list(range(2000))


def test_two_emitters_of_one_rank_never_write_into_one_file(folder, emitter):
    one, other = emitter(), emitter()
    one.scalar(1, "a", 1.0)
    other.scalar(2, "a", 2.0)
    assert len(list_segments(folder)) == 2
    assert read_scalars(folder)["step"].to_pylist() == [1, 2]


@pytest.mark.faults
def test_a_forked_child_writes_nothing_into_its_parents_segment(folder, emitter):
    one = emitter()
    one.scalar(1, "loss", 1.0)
    child = os.fork()
    if child == 0:
        one.scalar(2, "loss", 2.0)
        one.close()
        os._exit(0 if one.dropped == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    one.scalar(3, "loss", 3.0)
    assert read_scalars(folder)["step"].to_pylist() == [1, 3]


def test_a_disk_that_is_full_is_told_once_and_not_felt(folder, emitter, monkeypatch, caplog):
    one = emitter(segment_bytes=4096)
    monkeypatch.setattr(logging.getLogger("penstock"), "propagate", True)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    for step in range(300):
        one.scalar(step, "loss", 0.0)
    kept = read_scalars(folder).num_rows
    assert one.dropped == 300 - kept > 0
    assert len({id(record) for record in caplog.records}) == 1
    assert len(list_segments(folder)) == 1
    monkeypatch.undo()
    one._retry_at = 0.0  # the few seconds have passed
    one.scalar(300, "loss", 0.0)
    assert read_scalars(folder)["step"].to_pylist()[-1] == 300


def test_a_folder_that_cannot_be_made_is_not_felt(tmp_path):
    (tmp_path / "file").touch()
    one = Emitter(tmp_path / "file" / "signals", "run-1", 0, 1)
    one.scalar(1, "loss", 1.0)
    one.text(1, "note", "x")
    one.close()
    assert (one.dropped, one.segments) == (2, 0)


@pytest.mark.parametrize(("step", "value"), [(1, "x"), (1, None), (2**63, 1.0), ("1", 1.0)])
def test_what_is_not_a_number_is_bad_input(folder, emitter, step, value):
    one = emitter()
    with pytest.raises(BadInput, match="loss"):
        one.scalar(step, "loss", value)
    one.scalar(1, "loss", 1.0)
    assert read_scalars(folder).num_rows == 1


def test_long_names_and_texts_are_cut(folder, emitter):
    one = emitter()
    one.scalar(1, "n" * 2000, 1.0)
    one.text(1, "note", "x" * 100_000)
    assert read_scalars(folder)["name"].to_pylist() == ["n" * 512]
    assert len(read_texts(folder)["text"].to_pylist()[0]) == 32_000


def test_a_closed_emitter_drops(folder, emitter):
    one = emitter()
    one.close()
    one.close()
    one.scalar(1, "loss", 1.0)
    assert (one.dropped, read_scalars(folder).num_rows) == (1, 0)
