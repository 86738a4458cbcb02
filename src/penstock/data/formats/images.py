"""Folders of pictures: key = path, label = the name of the folder that holds it, image = its bytes.

Bytes stay encoded unless `decode=True`. Without decoding, JPEG and PNG are still checked to be
whole: markers, chunks and their checksums; that finds what is cut off, not every flipped bit.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput, MissingExtra
from penstock.data.columns import tensor_array
from penstock.data.formats.base import meant
from penstock.data.formats.files import File, read_whole
from penstock.data.formats.listing import Given
from penstock.data.formats.port import PIECE_BYTES, Input
from penstock.data.formats.small import Bad, SmallFiles

_CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}


class ImagesSource(SmallFiles):
    """`open_source("pictures")`

    decode  give uint8 [H, W, C] instead of bytes; needs Pillow (the extra `images`)
    size    (H, W) to which decoded pictures are resized; without it all must be equally large
    mode    "L", "RGB" or "RGBA", of decoded pictures
    check   "structure"; "decode" also decodes each, and finds all damage; "" trusts them
    """

    format = "images"
    suffixes = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")

    def __init__(
        self,
        given: Given,
        *,
        columns: Sequence[str] | None = None,
        cast: Mapping[str, str] | None = None,
        piece_bytes: int = PIECE_BYTES,
        decode: bool = False,
        size: Sequence[int] | None = None,
        mode: str = "RGB",
        check: str = "structure",
    ) -> None:
        super().__init__(given, columns=columns, cast=cast, piece_bytes=piece_bytes)
        if mode not in _CHANNELS or check not in ("structure", "decode", ""):
            raise BadInput(
                f'mode="{mode}", check="{check}"',
                'mode is "L", "RGB" or "RGBA"; check "structure", "decode" or "".',
            )
        self._decode, self._mode, self._check = decode, mode, check
        self._size = None if size is None else (int(size[0]), int(size[1]))
        if decode or check == "decode":
            _pillow()

    def inputs(self) -> Sequence[Input]:
        files = self.files()
        if self._schema is None:
            labelled = any("/" in file.name for file in files)
            fields = [meant("key", pa.string(), "key"), self._image_field(files)]
            fields += [meant("label", pa.string(), "category")] if labelled else []
            self._schema = self.settle(pa.schema(fields))
        return [file.whole() for file in files]

    def _image_field(self, files: Sequence[File]) -> pa.Field:
        if not self._decode:
            return meant("image", pa.binary(), "encoded-image")
        size = self._size
        for file in () if size else files:
            pixels = self._pixels(read_whole(file.whole()))
            if not isinstance(pixels, Bad):
                size = pixels.shape[:2]
                break
        if size is None:
            raise BadInput(f"no picture in {self.given} can be decoded", "Check the files.")
        shape = [*size, _CHANNELS[self._mode]]
        return meant("image", pa.fixed_shape_tensor(pa.uint8(), shape), "image")

    def size(self, input: Input) -> int:
        if not self._decode or "image" not in self.schema.names:
            return input.size
        return int(np.prod(self.schema.field("image").type.shape))

    def row(self, input: Input, data: bytes) -> dict[str, Any] | Bad:
        image: Any = data
        if self._decode or self._check == "decode":
            image = self._pixels(data)
        elif self._check and (fault := fault_of(data)):
            return Bad(fault)
        if isinstance(image, Bad):
            return image
        if self._decode and "image" in self.schema.names:
            wanted = tuple(self.schema.field("image").type.shape)
            if image.shape != wanted:
                return Bad(f"it is {list(image.shape)}, not {list(wanted)}; size= resizes")
        folder = PurePosixPath(input.name).parent.name
        image = image if self._decode else data
        return {"key": input.name, "image": image, "label": folder or None}

    def array(self, values: list[Any], field: pa.Field) -> pa.Array:
        if isinstance(field.type, pa.FixedShapeTensorType):
            return tensor_array(np.stack(values))
        return pa.array(values, field.type)

    def _pixels(self, data: bytes) -> Any:
        """uint8 [H, W, C], or why not."""
        pillow = _pillow()
        try:
            with pillow.open(io.BytesIO(data)) as picture:
                found = picture.convert(self._mode)
                if self._size is not None:
                    found = found.resize(self._size[::-1], pillow.Resampling.BILINEAR)
                pixels = np.asarray(found)
        except (OSError, ValueError, SyntaxError, EOFError, pillow.DecompressionBombError) as error:
            return Bad(f"it cannot be decoded: {error}")
        return pixels[..., None] if pixels.ndim == 2 else pixels


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra(
            "decoding pictures needs Pillow",
            'Install it: pip install "penstock[images]".',
            extra="images",
        ) from None
    return Image


def fault_of(data: bytes) -> str:
    """Why the bytes are no whole JPEG or PNG; "" where they are, or are something else."""
    if data.startswith(b"\xff\xd8"):
        return "" if b"\xff\xd9" in data[-4096:] else f"JPEG is cut off at byte {len(data)}"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_fault(data)
    if not data:
        return "it is empty"
    known = (b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6")
    return "" if data.startswith(known) else f"no picture begins with {data[:8]!r}"


def _png_fault(data: bytes) -> str:
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return f"PNG is damaged in the chunk at byte {at}"
        if data[at + 4 : at + 8] == b"IEND":
            return ""
        at = end
    return f"PNG is cut off at byte {len(data)}"
