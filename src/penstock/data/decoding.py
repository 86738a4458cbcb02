"""Encoded values as numbers: images by Pillow (penstock[images]), WAV by the standard library."""

from __future__ import annotations

import io
import warnings
import wave
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.base.errors import BadInput, MissingExtra
from penstock.data.columns import Array

# Bytes that a file of a format begins with; (offset, bytes), any of the alternatives.
IMAGES: dict[str, tuple[tuple[int, bytes], ...]] = {
    "jpeg": ((0, b"\xff\xd8\xff"),),
    "png": ((0, b"\x89PNG\r\n\x1a\n"),),
    "gif": ((0, b"GIF87a"), (0, b"GIF89a")),
    "webp": ((8, b"WEBP"),),
    "bmp": ((0, b"BM"),),
    "tiff": ((0, b"II*\0"), (0, b"MM\0*")),
}
_MODES = ("L", "RGB", "RGBA", "I;16", "F", "I")  # that are numbers as they are


def is_image(values: pa.Array, format: str = "") -> pa.Array:
    """Which binary values begin as an image of the format (of any, by default): bool [n]."""
    found = None
    for name, marks in IMAGES.items():
        for offset, mark in marks:
            if format in ("", name):
                here = _begins(values, offset, mark)
                found = here if found is None else pc.or_(found, here)
    return found


def is_wav(values: pa.Array) -> pa.Array:
    """Which binary values begin as a WAV file: bool [n]."""
    return pc.and_(_begins(values, 0, b"RIFF"), _begins(values, 8, b"WAVE"))


def _begins(values: pa.Array, offset: int, mark: bytes) -> pa.Array:
    found = pc.binary_slice(values, offset, offset + len(mark))
    return pc.equal(found, pa.scalar(mark, found.type))


def decode_image(data: bytes, place: str = "", format: str = "") -> Array:
    """An image file as uint8 [H, W] (grey) or [H, W, C]; 16-bit grey stays uint16.

    place   what the error calls it
    format  the only one that is accepted; "" for any that IMAGES lists
    Raises BadInput: no image, truncated, corrupt, larger than Pillow takes for an attack;
    MissingExtra without Pillow.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra(
            "decoding images needs Pillow", "pip install 'penstock[images]'"
        ) from None
    formats = [format.upper()] if format else [each.upper() for each in IMAGES]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=formats) as opened:
                image = opened if opened.mode in _MODES else opened.convert(_plain_mode(opened))
                found: Array = np.asarray(image)
    except Exception as error:  # noqa: BLE001 - Pillow raises OSError, SyntaxError, struct.error, …
        raise BadInput(
            f"{place or 'an image'} does not decode as {format or 'an image'}: {_first(error)}",
            'Replace the file, leave the row out, or prepare with bad="quarantine".',
            place=place,
            bytes=len(data),
        ) from None
    return found


def _plain_mode(image: Any) -> str:
    """What a palette, CMYK, … becomes: colours, with transparency where it has some."""
    if image.mode == "1":
        return "L"
    return "RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB"


def decode_wav(data: bytes, place: str = "", rate: int | None = None) -> Array:
    """A WAV file of whole-number samples (8, 16, 24 or 32 bits) as float32 [n, channels], -1..1.

    rate  samples per second that it must have
    Raises BadInput with the place: no WAV, truncated, another rate.
    """
    try:
        with wave.open(io.BytesIO(data)) as opened:
            width, channels, frames = (
                opened.getsampwidth(), opened.getnchannels(), opened.getnframes(),
            )  # fmt: skip
            found_rate, raw = opened.getframerate(), opened.readframes(frames)
    except (wave.Error, EOFError, ValueError) as error:
        raise _no_wav(place, _first(error)) from None
    if len(raw) != frames * width * channels:
        raise _no_wav(place, f"{len(raw)} of {frames * width * channels} bytes are there")
    if rate is not None and found_rate != rate:
        raise _no_wav(place, f"it has {found_rate} samples per second, not {rate}")
    return _samples(raw, width).reshape(-1, channels)


def _samples(raw: bytes, width: int) -> Array:
    if width == 1:  # the only unsigned one
        return (np.frombuffer(raw, "u1").astype(np.float32) - 128) / 128
    if width == 3:
        wide = np.zeros((len(raw) // 3, 4), "u1")
        wide[:, 1:] = np.frombuffer(raw, "u1").reshape(-1, 3)
        raw, width = wide.tobytes(), 4
    samples = np.frombuffer(raw, f"<i{width}") / 2.0 ** (8 * width - 1)
    return samples.astype(np.float32)


def _no_wav(place: str, why: str) -> BadInput:
    return BadInput(
        f"{place or 'a sound'} does not decode as WAV: {why}",
        "Convert it to WAV of whole-number samples, or leave the row out.",
        place=place,
    )


def _first(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200] or type(error).__name__
