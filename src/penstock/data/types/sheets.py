"""The types, each with its data sheet; the table is in `types/__init__.py`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.data import decoding
from penstock.data.columns import Array, Column
from penstock.data.references import Reference
from penstock.data.types.base import Type, one_of, whole


@dataclass(frozen=True)
class Image(Type):
    """Pixels.

    channels  where the axis of colours is: "last" [H, W, C] or "first" [C, H, W]; C is 1 to 4
    """

    channels: Literal["last", "first"] = "last"
    meaning: ClassVar[str] = "image"
    fits: ClassVar[str] = "tensors [H, W], [H, W, C] or [C, H, W] with 1 to 4 channels"

    def reasons(self, column: Column) -> list[str]:
        found = one_of(column, "tensor")
        if len(column.shape) not in (2, 3):
            return [*found, f"its shape has {len(column.shape)} axes, not 2 or 3"]
        colours = column.shape[-1 if self.channels == "last" else 0]
        if len(column.shape) == 3 and not 1 <= colours <= 4:
            found.append(f"the {self.channels} axis has {colours} channels, not 1 to 4")
        return found


@dataclass(frozen=True)
class EncodedImage(Type):
    """A whole image file.

    format  "jpeg", "png", "gif", "webp", "bmp" or "tiff"; "" for any of them
    """

    format: str = ""
    meaning: ClassVar[str] = "encoded-image"
    fits: ClassVar[str] = "bytes, or references to files"

    def reasons(self, column: Column) -> list[str]:
        found = one_of(column, "bytes", "reference")
        if self.format and self.format not in decoding.IMAGES:
            found.append(f'there is no format "{self.format}" ({", ".join(decoding.IMAGES)})')
        return found

    def wrong(self, values: pa.Array) -> pa.Array | None:
        if not pa.types.is_binary(values.type):
            return None
        right = decoding.is_image(values, self.format)
        return pc.invert(right)

    def decode(self, value: Any, place: str = "") -> Array:
        """uint8 [H, W] or [H, W, C]. Raises BadInput with the place; MissingExtra."""
        return decoding.decode_image(_bytes(value), place, self.format)


@dataclass(frozen=True)
class Audio(Type):
    """Sound.

    rate     samples per second; None where every value may have its own (WAV says it)
    varying  keep samples as lists, because their lengths differ
    """

    rate: int | None = None
    varying: bool = False
    meaning: ClassVar[str] = "audio"
    fits: ClassVar[str] = "lists or tensors [n] or [n, channels] of samples; WAV files in bytes"

    @property
    def varies(self) -> bool:
        return self.varying

    def reasons(self, column: Column) -> list[str]:
        found = one_of(column, "list", "tensor", "bytes", "reference")
        if column.kind == "tensor" and len(column.shape) > 2:
            found.append(f"its shape has {len(column.shape)} axes, not 1 or 2")
        if self.rate is not None and self.rate < 1:
            found.append(f"a rate of {self.rate} samples per second")
        return found

    def wrong(self, values: pa.Array) -> pa.Array | None:
        if not pa.types.is_binary(values.type):
            return None
        return pc.invert(decoding.is_wav(values))

    def decode(self, value: Any, place: str = "") -> Array:
        """float32 [n, channels] from -1 to 1 of a WAV file; samples as they are.

        Raises BadInput with the place: no WAV, truncated, another rate.
        """
        if isinstance(value, bytes | bytearray | memoryview | Reference):
            return decoding.decode_wav(_bytes(value), place, self.rate)
        samples: Array = np.asarray(value)
        return samples


@dataclass(frozen=True)
class Video(Type):
    """A film, read by ranges; decoding is the user's (frames lie unevenly in a file).

    rate    pictures per second, where it is the same for all
    format  such as "mp4"
    """

    rate: float | None = None
    format: str = ""
    meaning: ClassVar[str] = "video"
    fits: ClassVar[str] = "references, or bytes"

    def reasons(self, column: Column) -> list[str]:
        return one_of(column, "reference", "bytes")


@dataclass(frozen=True)
class PointCloud(Type):
    """Points with the same fields each.

    fields   what a point has, such as ("x", "y", "z", "intensity")
    varying  keep as lists, because the number of points differs; `decode` gives [n, fields]
    """

    fields: tuple[str, ...] = ("x", "y", "z")
    varying: bool = False
    meaning: ClassVar[str] = "point-cloud"
    fits: ClassVar[str] = "tensors [n, fields], or lists of n * fields numbers"

    @property
    def varies(self) -> bool:
        return self.varying

    def reasons(self, column: Column) -> list[str]:
        found = one_of(column, "tensor", "list")
        if column.kind == "tensor" and column.shape[-1:] != (len(self.fields),):
            found.append(f"its last axis is not the {len(self.fields)} fields of a point")
        if column.kind == "tensor" and len(column.shape) > 2:
            found.append(f"its shape has {len(column.shape)} axes, not 2")
        return found

    def wrong(self, values: pa.Array) -> pa.Array | None:
        if not pa.types.is_list(values.type):
            return None
        lengths = pc.list_value_length(values)
        whole = pc.multiply(pc.divide(lengths, len(self.fields)), len(self.fields))
        return pc.not_equal(lengths, whole)

    def decode(self, value: Any, place: str = "") -> Array:
        """[n, fields]."""
        return np.asarray(value).reshape(-1, len(self.fields))


@dataclass(frozen=True)
class Tokens(Type):
    """Numbers of words.

    vocabulary  how many there are; every token is 0..vocabulary-1
    varying     keep as lists, because their lengths differ
    """

    vocabulary: int | None = None
    varying: bool = False
    meaning: ClassVar[str] = "tokens"
    fits: ClassVar[str] = "lists or tensors [n] of whole numbers"

    @property
    def varies(self) -> bool:
        return self.varying

    def reasons(self, column: Column) -> list[str]:
        found = one_of(column, "list", "tensor")
        if column.kind == "tensor" and len(column.shape) != 1:
            found.append(f"its shape has {len(column.shape)} axes, not 1")
        if not whole(column):
            found.append(f"tokens are whole numbers, not {column.dtype}")
        if self.vocabulary is not None and self.vocabulary < 1:
            found.append(f"a vocabulary of {self.vocabulary} words")
        return found

    def wrong(self, values: pa.Array) -> pa.Array | None:
        if self.vocabulary is None:
            return None
        return _any_outside(values, self.vocabulary)


@dataclass(frozen=True)
class Text(Type):
    """Words for people.

    language  such as "en"
    """

    language: str = ""
    meaning: ClassVar[str] = "text"
    fits: ClassVar[str] = "text"

    def reasons(self, column: Column) -> list[str]:
        return one_of(column, "text")


@dataclass(frozen=True)
class Tensor(Type):
    """Numbers of one shape.

    shape  of one value; None as an axis fits any size; (None,) keeps lists, whose lengths differ
    dtype  NumPy's name; "" for any
    """

    shape: tuple[int | None, ...] | None = None
    dtype: str = ""
    meaning: ClassVar[str] = "tensor"
    fits: ClassVar[str] = "tensors of its shape and dtype; of shape (None,) lists"

    @property
    def varies(self) -> bool:
        return self.shape == (None,)

    def reasons(self, column: Column) -> list[str]:
        found = one_of(column, "list" if self.varies else "tensor")
        if self.shape is not None and not self.varies and not self._fits(column.shape):
            found.append(f"its shape is {list(column.shape)}, not {list(self.shape)}")
        if self.dtype and self.dtype != column.dtype:
            found.append(f"its dtype is {column.dtype}, not {self.dtype}")
        return found

    def _fits(self, shape: tuple[int, ...]) -> bool:
        wanted = self.shape or ()
        return len(shape) == len(wanted) and all(
            size in (None, there) for size, there in zip(wanted, shape, strict=True)
        )


@dataclass(frozen=True)
class Category(Type):
    """One of several.

    names  in the order in which numbers count them; () where nobody named them
    """

    names: tuple[str, ...] = ()
    meaning: ClassVar[str] = "category"
    fits: ClassVar[str] = "whole numbers that count its names, flags, or the names as text"

    def reasons(self, column: Column) -> list[str]:
        found = one_of(column, "number", "text")
        if column.kind == "number" and column.dtype.startswith("float"):
            found.append(f"numbers of categories are whole, not {column.dtype}")
        if len(set(self.names)) < len(self.names):
            found.append("two of its names are equal")
        return found

    def wrong(self, values: pa.Array) -> pa.Array | None:
        if not self.names:
            return None
        if pa.types.is_string(values.type):
            return pc.invert(pc.is_in(values, pa.array(self.names, pa.string())))
        return _any_outside(values, len(self.names))

    def decode(self, value: Any, place: str = "") -> Any:
        """The name."""
        return self.names[int(value)] if self.names and not isinstance(value, str) else value


@dataclass(frozen=True)
class Timestamp(Type):
    """When.

    unit  of numbers: "s", "ms", "us" or "ns"; time knows its own
    """

    unit: Literal["s", "ms", "us", "ns"] = "s"
    meaning: ClassVar[str] = "timestamp"
    fits: ClassVar[str] = "numbers, or time"

    def reasons(self, column: Column) -> list[str]:
        found = one_of(column, "number", "time")
        if column.dtype == "bool":
            found.append("a flag is no time")
        if self.unit not in ("s", "ms", "us", "ns"):
            found.append(f'there is no unit "{self.unit}" (s, ms, us, ns)')
        return found


class _Name(Type):
    fits: ClassVar[str] = "whole numbers, text or bytes"

    def reasons(self, column: Column) -> list[str]:
        found = one_of(column, "number", "text", "bytes")
        if column.kind == "number" and not whole(column):
            found.append(f"{column.dtype} names nothing")
        return found


@dataclass(frozen=True)
class Key(_Name):
    """Names the sample; no two are equal."""

    meaning: ClassVar[str] = "key"


@dataclass(frozen=True)
class Episode(_Name):
    """Names what several rows belong to: a drive, a dialogue, a patient. Splits keep it whole."""

    meaning: ClassVar[str] = "episode"


TYPES: dict[str, type[Type]] = {
    each.meaning: each
    for each in (
        Image, EncodedImage, Audio, Video, PointCloud, Tokens,
        Text, Tensor, Category, Timestamp, Key, Episode,
    )
}  # fmt: skip


def type_of(column: Column) -> Type | None:
    """The type that a column's meaning names; None for no meaning or one from a later Penstock."""
    kind = TYPES.get(column.meaning)
    if kind is None:
        return None
    known = {each.name for each in dataclasses.fields(kind)}
    options = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in column.options.items()
        if name in known
    }
    return kind(**options)


def _any_outside(values: pa.Array, size: int) -> pa.Array:
    """Which values (for lists and tensors: with any element) are not 0..size-1: bool [n]."""
    if isinstance(values.type, pa.FixedShapeTensorType):
        flat = values.storage.flatten().to_numpy(zero_copy_only=False)
        outside = ((flat < 0) | (flat >= size)).reshape(len(values), -1).any(axis=1)
        return pa.array(outside)
    if pa.types.is_list(values.type):
        flat = values.flatten().to_numpy(zero_copy_only=False)
        rows = values.value_parent_indices().to_numpy()[(flat < 0) | (flat >= size)]
        found = np.zeros(len(values), bool)
        found[rows] = True
        return pa.array(found)
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8())
    return pc.or_(
        pc.less(values, pa.scalar(0, values.type)),
        pc.greater_equal(values.cast(pa.float64()), float(size)),
    )


def _bytes(value: Any) -> bytes:
    return value.read() if isinstance(value, Reference) else bytes(value)
