"""Damaged files are told with what a person needs to find the damage: member, row group, offset."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.base.errors import BadInput
from penstock.data.formats import open_source
from penstock.data.formats.parquet_footer import footer_span, spans

from .examples import EXAMPLES, ROWS, jpeg, read, tar


def refused(path: Path, **options: object) -> BadInput:
    with pytest.raises(BadInput) as caught:
        read(open_source(path, **options))  # type: ignore[arg-type]
    assert path.name in caught.value.what
    return caught.value


# Parquet


def test_a_damaged_page_is_told_with_its_row_group_and_row(tmp_path: Path) -> None:
    path = EXAMPLES["parquet"](tmp_path).path
    data = bytearray(path.read_bytes())
    first, _ = _spans(path)[3]
    data[first + 60] ^= 1
    path.write_bytes(data)
    error = refused(path)
    assert error.facts["row_group"] == 3
    assert error.facts["row"] == 150
    good = open_source(path, piece_bytes=1500)
    groups = [each for each in good.inputs() if each.piece and each.piece[1] != 3]
    assert read(good, groups).table.num_rows == ROWS - 50


@pytest.mark.parametrize("keep", [0, 3, 100, 0.5, -4, -1])
def test_a_parquet_file_cut_off_is_told_with_its_size(keep: float, tmp_path: Path) -> None:
    path = EXAMPLES["parquet"](tmp_path).path
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else int(keep)])
    assert "no whole Parquet file" in refused(path).what


def test_the_footers_decoder_agrees_with_arrow(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"a": np.arange(5000), "b": ["x", None] * 2500, "c": [[1, 2]] * 5000})
    pq.write_table(table, path, row_group_size=700, compression="zstd", data_page_size=1000)
    facts = pq.read_metadata(path)
    expected = []
    for group in range(facts.num_row_groups):
        chunks = [facts.row_group(group).column(i) for i in range(facts.num_columns)]
        starts = [c.dictionary_page_offset or c.data_page_offset for c in chunks]
        ends = [s + c.total_compressed_size for s, c in zip(starts, chunks, strict=True)]
        expected.append((min(starts), max(ends)))
    assert _spans(path) == expected


def test_a_footer_that_would_end_the_process_is_an_error(tmp_path: Path) -> None:
    """pyarrow ends the process at a histogram of the wrong size; a bad footer must not reach it."""
    path = EXAMPLES["parquet"](tmp_path).path
    data = path.read_bytes()
    first, end = footer_span(data[-8:], len(data))
    seen = set()
    for at in range(first, end, 7):
        bad = bytearray(data)
        bad[at] ^= 4
        path.write_bytes(bad)
        try:
            source = open_source(path, piece_bytes=1500)
            for each in source.inputs():
                source.digest(each)
            seen.add("read")
        except BadInput as error:
            seen.add("refused")
            assert "Parquet" in error.what or "schema" in error.what
    assert seen == {"read", "refused"}


def _spans(path: Path) -> list[tuple[int, int]]:
    data = path.read_bytes()
    first, end = footer_span(data[-8:], len(data))
    return spans(data[first:end])


def test_differing_schemas_are_all_told_with_their_files(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": ["x"], "n": pa.nulls(1)}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"a": [1.5], "b": ["x"], "n": [1]}), tmp_path / "1.parquet")
    for i in range(2, 7):
        pq.write_table(pa.table({"a": [1], "c": [True], "n": [2]}), tmp_path / f"{i}.parquet")
    with pytest.raises(BadInput) as caught:
        open_source(tmp_path).inputs()
    assert caught.value.facts["differences"] == [
        '"a" is double, not int64 (in 1.parquet)',
        '"b" is not there (in 2.parquet, 3.parquet, 4.parquet and 2 more)',
        '"c" is there, but not in 0.parquet (in 2.parquet, 3.parquet, 4.parquet and 2 more)',
    ]
    got = read(open_source(tmp_path, columns=["a", "n"], cast={"a": "float64"}))
    assert got.table["a"].to_pylist() == [1.0, 1.5, 1, 1, 1, 1, 1]
    assert got.table["n"].to_pylist() == [None, 1, 2, 2, 2, 2, 2]


def test_a_cast_that_does_not_hold_is_told_with_column_and_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": ["1", "x"]}), tmp_path / "0.parquet")
    with pytest.raises(BadInput, match=r'0\.parquet row group 0: column "a" is not int64'):
        read(open_source(tmp_path, cast={"a": "int64"}))


# Arrow


@pytest.mark.parametrize("kind", ["arrow", "stream"])
def test_an_arrow_file_cut_off_is_told(kind: str, tmp_path: Path) -> None:
    path = EXAMPLES[kind](tmp_path).path
    path.write_bytes(path.read_bytes()[:-2000])
    assert "no whole Arrow file or stream" in refused(path).what


def test_text_of_an_arrow_file_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    path = EXAMPLES["arrow"](tmp_path).path
    data = path.read_bytes()
    path.write_bytes(data.replace("ä".encode(), b"\xff\xfe"))
    assert "UTF8" in refused(path).what


def test_feather_1_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.feather").write_bytes(b"FEA1" + bytes(50))
    assert "Feather 1" in refused(tmp_path / "a.feather").what


# tar


def test_a_tar_file_cut_off_names_member_and_offset(tmp_path: Path) -> None:
    path = EXAMPLES["webdataset"](tmp_path).path
    data = path.read_bytes()
    path.write_bytes(data[: 512 * 20 + 44])
    error = refused(path)
    assert error.facts["offset"] == 512 * 20
    assert re.search(r"at byte 10240, (in|after) a/003\.bin", error.what)


def test_a_broken_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = EXAMPLES["webdataset"](tmp_path).path
    data = bytearray(path.read_bytes())
    data[512 * 12] ^= 1  # the name in the third sample's first header
    path.write_bytes(data)
    error = refused(path)
    assert error.facts["offset"] == 512 * 12
    assert "after a/001.txt" in error.what


def test_a_tar_file_without_its_end_is_told(tmp_path: Path) -> None:
    path = EXAMPLES["webdataset"](tmp_path).path
    path.write_bytes(path.read_bytes()[: ROWS * 3 * 1024])
    assert "it has no end mark" in refused(path).what


def test_what_is_no_tar_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no tar" * 500)
    assert "no tar file" in refused(tmp_path / "a.tar").what
    (tmp_path / "b.tar.gz").write_bytes(b"no gz" * 500)
    assert "no tar file" in refused(tmp_path / "b.tar.gz").what


def test_paths_that_leave_the_folder_are_bad_records(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "a.tar",
        [("ok.txt", b"1"), ("../up.txt", b"2"), ("/abs.txt", b"3"), ("a/../b.txt", b"4")],
    )
    got = read(open_source(path))
    assert got.table["key"].to_pylist() == ["ok"]
    assert ["leaves its folder" in each.error for each in got.bad] == [True] * 3
    assert got.bad[0].place == "a.tar:../up@1024"


def test_links_and_members_without_extension_are_bad_records(tmp_path: Path) -> None:
    import tarfile

    path = tar(tmp_path / "a.tar", [("ok.txt", b"1"), ("noname", b"")])
    with tarfile.open(path, "a") as out:
        link = tarfile.TarInfo("l.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        out.addfile(link)
    got = read(open_source(path))
    assert got.table["key"].to_pylist() == ["ok"]
    assert "has no extension" in got.bad[0].error
    assert "a link or device" in got.bad[1].error


def test_samples_unlike_the_first_are_bad_records_unless_columns_are_named(tmp_path: Path) -> None:
    members = [("0.txt", b"a"), ("0.cls", b"1"), ("1.txt", b"b"), ("2.txt", b"c"), ("2.cls", b"x")]
    members += [("3.txt", b"d"), ("3.cls", b"3"), ("3.json", b"{}"), ("4.txt", b"\xff")]
    path = tar(tmp_path / "a.tar", [*members, ("4.cls", b"4")])
    got = read(open_source(path))
    assert got.table.to_pylist() == [{"key": "0", "txt": "a", "cls": 1}]
    assert [each.error.split(":")[0] for each in got.bad] == [
        "it has no .cls",
        ".cls is not int64",
        "it has .json, the first sample has none",
        ".txt is not string",
    ]
    got = read(open_source(path, columns=["cls", "json"]))
    assert got.table.to_pylist()[1] == {"key": "1", "cls": None, "json": None}
    assert got.table.num_rows == 4


# pictures


def test_pictures_cut_off_or_empty_are_bad_records_with_their_path(tmp_path: Path) -> None:
    from PIL import Image

    whole = jpeg(1, (64, 64))
    (tmp_path / "a.jpg").write_bytes(whole)
    (tmp_path / "b.jpg").write_bytes(whole[:-200])
    (tmp_path / "c.jpg").write_bytes(b"")
    (tmp_path / "d.jpg").write_bytes(b"<html>not found</html>")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "e.png")
    png = bytearray((tmp_path / "e.png").read_bytes())
    (tmp_path / "g.png").write_bytes(png[:-5])
    png[45] ^= 1
    (tmp_path / "f.png").write_bytes(png)
    got = read(open_source(tmp_path))
    assert got.table["key"].to_pylist() == ["a.jpg", "e.png"]
    assert [each.place for each in got.bad] == ["b.jpg", "c.jpg", "d.jpg", "f.png", "g.png"]
    told = [each.error for each in got.bad]
    assert re.match(r"JPEG is cut off at byte \d+", told[0])
    assert told[1] == "it is empty"
    assert told[2].startswith("no picture begins with")
    assert told[3] == "PNG is damaged in the chunk at byte 33"
    assert got.bad[0].raw == whole[:-200]


def test_decoding_finds_all_damage_and_gives_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    (tmp_path / "b.jpg").write_bytes(jpeg(2)[:300] + b"\xff\xd9")
    (tmp_path / "c.jpg").write_bytes(jpeg(3, (8, 8)))
    got = read(open_source(tmp_path, decode=True))
    assert got.table["image"].type == pa.fixed_shape_tensor(pa.uint8(), [16, 12, 3])
    assert [each.place for each in got.bad] == ["b.jpg", "c.jpg"]
    assert "size= resizes" in got.bad[1].error
    got = read(open_source(tmp_path, decode=True, size=(4, 4), mode="L"))
    assert got.table["image"].type.shape == [4, 4, 1]
    assert [each.place for each in got.bad] == ["b.jpg"]
    assert not read(open_source(tmp_path)).bad
    assert len(read(open_source(tmp_path, check="decode")).bad) == 1


# HDF5 and Zarr


def test_an_hdf5_file_cut_off_is_told_with_its_size(tmp_path: Path) -> None:
    path = EXAMPLES["hdf5"](tmp_path).path
    path.write_bytes(path.read_bytes()[:-500])
    assert "no whole HDF5 file" in refused(path).what


@pytest.mark.parametrize(
    "options",
    [{}, {"chunks": (10,)}, {"chunks": (7,), "compression": "gzip", "shuffle": True}],
    ids=["contiguous", "chunked", "packed"],
)
def test_a_damaged_heap_of_texts_is_told_and_not_walked_for_ever(
    options: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "a.h5"
    texts = [f"text {i} " * 20 for i in range(100)]
    with h5py.File(path, "w", userblock_size=512) as out:
        out.create_dataset("t", data=texts, dtype=h5py.string_dtype(), **options)
    assert read(open_source(path)).table["t"].to_pylist() == texts
    data = bytearray(path.read_bytes())
    heap = data.find(b"GCOL")
    data[heap + 16 : heap + 32] = bytes(16)  # an object that never ends
    path.write_bytes(data)
    assert f"heap of texts at byte {heap} is damaged at byte {heap + 16}" in refused(path).what


def test_arrays_of_several_lengths_are_all_told(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as out:
        out["a"], out["b"], out["scalar"] = np.arange(3), np.arange(4), 7
    error = refused(path)
    assert error.facts["lengths"] == {"a": 3, "b": 4}
    assert read(open_source(path, columns=["b"])).table.num_rows == 4


def test_arrays_of_types_that_no_column_has_are_all_told(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as out:
        out["a"] = np.arange(3)
        out["c"] = np.ones(3, complex)
        out["p"] = np.ones(3, [("x", "f4")])
    error = refused(path)
    assert len(error.facts["arrays"]) == 2
    assert read(open_source(path, columns=["a"])).table.num_rows == 3


def test_an_unknown_group_offers_the_nearest(tmp_path: Path) -> None:
    path = EXAMPLES["episodes"](tmp_path).path
    with pytest.raises(BadInput, match='Did you mean "data"'):
        open_source(path, group="dta").inputs()


def test_episodes_that_differ_are_told_by_name(tmp_path: Path) -> None:
    path = EXAMPLES["episodes"](tmp_path).path
    with h5py.File(path, "a") as out:
        out["data/demo_20/action"] = np.zeros((5, 4), np.float32)
        out["data/demo_20/obs/image"] = np.zeros((5, 2, 2), np.uint8)
    error = refused(path)
    assert "demos.hdf5:demo_20" in error.facts["differences"][0]


def test_episodes_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    got = read(EXAMPLES["episodes"](tmp_path).open()).table
    assert got["episode"].unique().to_pylist() == [f"demo_{i}" for i in range(20)]
    assert got["step"].to_pylist() == list(range(20)) * 20
    assert got["action"].combine_chunks().to_numpy_ndarray()[::20, 0].tolist() == list(range(20))


def test_a_damaged_chunk_of_a_zarr_store_is_told(tmp_path: Path) -> None:
    example = EXAMPLES["zarr"](tmp_path)
    chunk = next(each for each in example.files if "c" in each.relative_to(example.path).parts)
    chunk.write_bytes(b"damaged")
    assert "cannot be read" in refused(example.path).what
