"""Semantic types: what fits them, what columns say of them, and what encoded values decode to."""

from __future__ import annotations

import io
import json
import wave
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.base.errors import BadInput
from penstock.blobs import Blobs
from penstock.data import read_split, to_numpy
from penstock.data.columns import Column, column_of_field
from penstock.data.manifest import read_manifest
from penstock.data.rows import Blocks
from penstock.data.types import (
    TYPES,
    Audio,
    Category,
    EncodedImage,
    Episode,
    Image,
    Key,
    PointCloud,
    Tensor,
    Text,
    Timestamp,
    Tokens,
    Type,
    Types,
    Video,
    apply_types,
    type_of,
)


def encoded(pixels: np.ndarray, format: str) -> bytes:
    pil = pytest.importorskip("PIL.Image")
    stream = io.BytesIO()
    pil.fromarray(pixels).save(stream, format)
    return stream.getvalue()


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (12, 10, 3), dtype=np.uint8)


def wav(samples: np.ndarray, rate: int = 8000, width: int = 2) -> bytes:
    """A WAV file of whole numbers [n, channels] of `width` bytes."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as out:
        out.setnchannels(samples.shape[1])
        out.setsampwidth(width)
        out.setframerate(rate)
        raw = samples.astype("<i4").tobytes() if width > 1 else samples.astype("u1").tobytes()
        if width in (2, 3):
            raw = np.frombuffer(raw, "u1").reshape(-1, 4)[:, :width].tobytes()
        out.writeframes(raw)
    return stream.getvalue()


N, T, L, B, W, R, AT = (
    Column("x", "number", "int64"),
    Column("x", "tensor", "uint8", (8, 8, 3)),
    Column("x", "list", "int32"),
    Column("x", "bytes", "binary"),
    Column("x", "text", "string"),
    Column("x", "reference", "range"),
    Column("x", "time", "timestamp[us]"),
)
F = Column("x", "number", "float32")


@pytest.mark.parametrize(
    ("given", "fitting"),
    [
        (Image(), [T, Column("x", "tensor", "float32", (8, 8))]),
        (Image("first"), [Column("x", "tensor", "float32", (3, 8, 8))]),
        (EncodedImage("jpeg"), [B, R]),
        (Audio(16_000), [L, B, R, Column("x", "tensor", "float32", (100, 2))]),
        (Video(30.0), [R, B]),
        (PointCloud(), [L, Column("x", "tensor", "float32", (100, 3))]),
        (Tokens(50_000), [L, Column("x", "tensor", "int32", (100,))]),
        (Text("en"), [W]),
        (Tensor((8, None, 3), "uint8"), [T]),
        (Tensor((None,)), [L]),
        (Category(("cat", "dog")), [N, W, Column("x", "number", "bool")]),
        (Timestamp("ms"), [N, F, AT]),
        (Key(), [N, W, B]),
        (Episode(), [N, W, B]),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_type_fits_its_columns_and_no_others(given: Type, fitting: list[Column]) -> None:
    for column in [N, T, L, B, W, R, AT, F, *fitting]:
        if column in fitting:
            found = given.check(column)
            assert found.meaning == given.meaning
            assert type_of(found) == given
            assert found.storage == column.storage
            continue
        with pytest.raises(BadInput, match=type(given).__name__):
            given.check(column)


def test_every_type_has_a_meaning_and_says_what_fits() -> None:
    assert set(TYPES) == {
        "image", "encoded-image", "audio", "video", "point-cloud", "tokens", "text", "tensor",
        "category", "timestamp", "key", "episode",
    }  # fmt: skip
    assert all(kind.fits for kind in TYPES.values())


def test_a_misfit_tells_all_that_is_wrong_at_once() -> None:
    with pytest.raises(BadInput) as error:
        Tensor((3, 3), "float32").check(T)
    assert len(error.value.facts["reasons"]) == 2
    columns = [Column("a", "text", "string"), Column("b", "number", "float64")]
    with pytest.raises(BadInput) as error:
        apply_types(columns, {"a": Image(), "b": Category()})
    assert error.value.facts["columns"] == ["a", "b"]
    assert 'column "a"' in error.value.what


def test_a_type_for_no_column_and_what_is_no_type_are_refused() -> None:
    with pytest.raises(BadInput, match='"imag", which is not in the data') as error:
        apply_types([Column("image", "bytes", "binary")], {"imag": EncodedImage()})
    assert "image" in error.value.fix
    with pytest.raises(BadInput, match="is no type"):
        apply_types([N], {"x": "image"})  # type: ignore[dict-item]


def test_a_meaning_of_a_later_penstock_is_no_type_and_no_error() -> None:
    assert type_of(Column("x", "bytes", "binary", (), "hologram", {"depth": 3})) is None
    assert type_of(Column("x", "bytes", "binary", (), "encoded-image", {"later": 3})) == (
        EncodedImage()
    )


def test_columns_with_options_are_keys_of_dictionaries() -> None:
    one = Tokens(100).check(L)
    assert {one: 1}[Tokens(100).check(L)] == 1
    assert one != Tokens(101).check(L)


def typed(given: Any, types: Types | None = None) -> tuple[list[Column], pa.Table]:
    blocks = Blocks(given, types)
    tables = list(blocks)
    return blocks.columns or [], pa.concat_tables(tables)


def test_types_pass_through_a_version_and_stand_in_its_shards(make: Any, blobs: Blobs) -> None:
    rows = [{"id": i, "words": list(range(i % 5)), "kind": i % 2} for i in range(30)]
    types = {"words": Tokens(5, varying=True), "kind": Category(("cat", "dog"))}
    data = make(blobs, rows, types=types, shard_rows=7)
    again = read_manifest(blobs, data.digest)
    assert [type_of(each) for each in again.columns] == [Key(), *types.values()]
    table = read_split(blobs, again, "all")
    assert table.schema.field("words").metadata == {
        b"penstock.meaning": b"tokens",
        b"penstock.options": b'{"varying":true,"vocabulary":5}',
    }
    assert [column_of_field(each) for each in table.schema] == list(again.columns)
    words = to_numpy(table, again.columns)["words"]
    assert [each.tolist() for each in words] == [row["words"] for row in rows]


def test_equally_long_arrays_are_lists_where_the_type_says_so() -> None:
    rows = [{"words": [1, 2, 3]} for _ in range(4096)] + [{"words": [1]}]
    with pytest.raises(BadInput, match=r"int64\[1\], not int64\[3\]") as error:
        typed(rows)
    assert 'types={"words": Tensor((None,))}' in error.value.fix
    (column,), table = typed(rows, {"words": Tokens(varying=True)})
    assert (str(column), table.num_rows) == ("list of int64", 4097)
    arrays = pa.table({"words": pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2))})
    (column,), table = typed([arrays, arrays], {"words": Tokens(varying=True)})
    assert (str(column), table.num_rows) == ("list of int32", 4)


def test_meanings_that_arrow_carries_are_kept(make: Any, blobs: Blobs) -> None:
    columns, table = typed([{"x": 1}], {"x": Category(("a", "b"))})
    assert typed(table)[0] == columns


@pytest.mark.parametrize(
    ("values", "kind", "rows"),
    [
        ([0, 1, 2, -1, None], Category(("a", "b")), [2, 3]),
        (["a", "c", None], Category(("a", "b")), [1]),
        ([[0, 4], [5], [], [-1]], Tokens(5), [1, 3]),
        (np.array([[0, 4], [5, 0]]), Tokens(5), [1]),
        ([[1.0, 2.0, 3.0], [1.0]], PointCloud(), [1]),
        ([b"\xff\xd8\xff", b"text", b"\x89PNG\r\n\x1a\n"], EncodedImage("jpeg"), [1, 2]),
        ([b"RIFF....WAVE", b"RIFF"], Audio(), [1]),
    ],
    ids=str,
)
def test_values_that_are_not_what_their_type_says_are_named(
    values: Any, kind: Type, rows: list[int]
) -> None:
    with pytest.raises(BadInput, match="hold") as error:
        typed({"x": values}, {"x": kind})
    assert error.value.facts["rows"] == rows


def test_rows_are_counted_over_all_blocks() -> None:
    with pytest.raises(BadInput) as error:
        typed(({"x": i % 5000} for i in range(9000)), {"x": Category(tuple(map(str, range(4999))))})
    assert error.value.facts["rows"] == [4999]


def test_images_in_bytes_are_seen_by_themselves(picture: np.ndarray) -> None:
    jpeg, png = encoded(picture, "JPEG"), encoded(picture, "PNG")
    rows = {"a": [jpeg, jpeg], "b": [png, None], "c": [jpeg, png], "d": [jpeg, b"text"]}
    rows["e"] = [wav(np.zeros((4, 1)))] * 2
    columns, _ = typed(rows)
    assert {each.name: type_of(each) for each in columns} == {
        "a": EncodedImage("jpeg"),
        "b": EncodedImage("png"),
        "c": EncodedImage(),
        "d": None,
        "e": Audio(),
    }


def test_images_decode(picture: np.ndarray) -> None:
    assert (EncodedImage().decode(encoded(picture, "PNG")) == picture).all()
    near = EncodedImage("jpeg").decode(encoded(np.full((8, 8, 3), 90, np.uint8), "JPEG"))
    assert near.shape == (8, 8, 3)
    assert abs(near.astype(int) - 90).max() <= 2
    assert EncodedImage().decode(encoded(picture[..., 0], "PNG")).shape == (12, 10)
    deep = (picture[..., 0].astype(np.uint16) << 8) + 7
    assert (EncodedImage().decode(encoded(deep, "PNG")) == deep).all()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP"])
@pytest.mark.parametrize("where", [4, 30, 0.5, 0.9])
def test_a_torn_image_is_one_error_with_its_place(
    picture: np.ndarray, format: str, where: float
) -> None:
    data = encoded(picture, format)
    torn = data[: int(where if where >= 1 else where * len(data))]
    with pytest.raises(BadInput, match="train, row 7 does not decode") as error:
        EncodedImage().decode(torn, "train, row 7")
    assert error.value.facts["place"] == "train, row 7"


@pytest.mark.parametrize("data", [b"", b"text", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" * 9])
def test_what_is_no_image_is_one_error(data: bytes) -> None:
    pytest.importorskip("PIL")
    with pytest.raises(BadInput, match="does not decode"):
        EncodedImage().decode(data)


def test_an_image_of_another_format_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(BadInput, match="does not decode as jpeg"):
        EncodedImage("jpeg").decode(encoded(picture, "PNG"))


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wav_of_every_width_decodes(width: int) -> None:
    top = 2 ** (8 * width - 1) - 1
    samples = np.array([[0, top], [-top, top // 2]])
    stored = samples + 128 if width == 1 else samples
    found = Audio(8000).decode(wav(stored, width=width))
    assert found.dtype == np.float32
    assert found == pytest.approx(samples / (top + 1), abs=1e-6)


def test_a_torn_wav_and_another_rate_are_one_error_each() -> None:
    data = wav(np.zeros((100, 1)))
    for torn in (data[:-10], data[:30], b"RIFF", b""):
        with pytest.raises(BadInput, match="clip 3 does not decode as WAV"):
            Audio().decode(torn, "clip 3")
    with pytest.raises(BadInput, match="8000 samples per second, not 16000"):
        Audio(16_000).decode(data)


def test_points_and_categories_decode() -> None:
    assert PointCloud().decode(np.arange(6)).shape == (2, 3)
    assert Category(("a", "b")).decode(1) == "b"
    assert Category().decode(1) == 1
    assert Audio().decode(np.ones(3)).tolist() == [1, 1, 1]


def test_a_manifest_from_before_there_were_meanings_is_read(make: Any, blobs: Blobs) -> None:
    data = make(blobs, {"id": [1, 2], "x": [1.5, 2.5]})
    old = json.loads(blobs.get(data.digest))
    for column in old["columns"]:
        del column["meaning"], column["options"]
    for name, statistics in old["statistics"].items():
        known = ("rows", "nulls", "not_finite", "min", "max", "mean", "counts")
        old["statistics"][name] = {each: statistics[each] for each in known}
    again = read_manifest(blobs, blobs.put(json.dumps(old).encode()))
    assert [each.meaning for each in again.columns] == ["", ""]
    assert [each.storage for each in again.columns] == [each.storage for each in data.columns]
    assert again.statistics["x"].quantiles is None
