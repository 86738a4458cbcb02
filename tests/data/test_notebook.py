"""A dataset in a notebook: escaped, small, pictures as pictures."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from penstock.blobs import Blobs
from penstock.data.columns import Column
from penstock.data.dataset import Dataset
from penstock.data.manifest import Manifest
from penstock.data.notebook import png, rows_html, thumbnail
from penstock.data.showing import plain, value_text

Image = pytest.importorskip("PIL.Image")
Make = Callable[..., Manifest]


def opened(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("shape", [(1, 1), (8, 9), (5, 4, 3), (3, 7, 4)])
def test_a_png_holds_the_pixels(shape: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(opened(png(picture)), picture)


@pytest.mark.parametrize(
    ("shape", "column", "size"),
    [
        ((8, 8), Column("x", "tensor", "float32", (8, 8)), (8, 8)),
        ((200, 100, 3), Column("x", "tensor", "uint8", (200, 100, 3)), (50, 25, 3)),
        ((3, 64, 64), Column("x", "tensor", "uint8", (3, 64, 64)), (64, 64, 3)),
        ((64, 64, 1), Column("x", "tensor", "uint8", (64, 64, 1)), (64, 64)),
        ((4, 6), Column("x", "tensor", "uint8", (4, 6), "image"), (4, 6)),
    ],
)
def test_tensors_that_look_like_pictures_are_shown_as_such(
    shape: tuple[int, ...], column: Column, size: tuple[int, ...]
) -> None:
    found = thumbnail(np.zeros(shape, column.dtype), column)
    assert found is not None
    assert opened(found[1]).shape == size


@pytest.mark.parametrize(
    "value",
    [np.zeros((4, 4)), np.zeros(100), np.zeros((9, 9, 9)), np.zeros((9, 5000)), "text", None, 3],
)
def test_what_is_no_picture_is_told_in_words(value: Any) -> None:
    assert thumbnail(value, Column("x", "tensor", "float64")) is None


def test_a_picture_of_numbers_is_stretched(blobs: Blobs) -> None:
    values = np.linspace(-3, 5, 64).reshape(8, 8)
    values[0, 0] = np.nan
    found = thumbnail(values, Column("x", "tensor", "float64", (8, 8)))
    assert found is not None
    pixels = opened(found[1])
    assert (int(pixels.min()), int(pixels.max())) == (0, 255)


def test_encoded_images_are_shown_small(blobs: Blobs, make: Make) -> None:
    def encoded(side: int, kind: str) -> bytes:
        stream = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(noise).save(stream, kind)
        return stream.getvalue()

    rows = [{"id": 0, "file": encoded(10, "PNG")}, {"id": 1, "file": encoded(300, "PNG")}]
    data = Dataset(blobs, make(blobs, rows), "d@1:all", "all")
    html = data._repr_html_()
    shown = [base64.b64decode(each) for each in re.findall(r"base64,([\w+/=]+)", html)]
    assert shown[0] == rows[0]["file"]
    assert opened(shown[1]).shape == (60, 60, 3)
    torn = thumbnail(b"\x89PNG\r\n\x1a\n" + bytes(40_000), data.columns[1])
    assert torn is None, "a broken picture breaks no table"


def test_what_data_says_is_never_markup(blobs: Blobs, make: Make) -> None:
    rows = [{"<script>": "<img src=x onerror=alert(1)>", "id": i} for i in range(7)]
    data = Dataset(blobs, make(blobs, rows), "d@1:all", "all")
    html = data._repr_html_()
    assert "<script>" not in html
    assert "<img" not in html
    assert html.count("<tr>") == 6, "a heading and five rows"
    assert "and 20 more" in rows_html(rows * 10, data.columns)


def test_values_on_one_line() -> None:
    assert value_text(np.array([1.5, 2.5])) == "[1.5, 2.5]"
    assert value_text(float("nan")) == "nan"
    assert value_text(b"RIFF0000WAVE") == "wav 12 bytes"
    assert value_text("a\n  b" * 40, 10) == "a ba ba b…"
    assert plain(np.array([np.nan] * 20, np.float32)) == {"dtype": "float32", "shape": [20]}
    assert plain(np.array([np.inf, 1.0])) == ["inf", 1.0]
    assert len(plain("x" * 9999)) == 2000
