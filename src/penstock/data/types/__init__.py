"""What the values of a column mean: semantic types, declared with `types={"image": Image()}`.

| type         | meaning         | fits                                                     |
|--------------|-----------------|----------------------------------------------------------|
| Image        | `image`         | tensor [H, W], [H, W, C] or (channels="first") [C, H, W] |
| EncodedImage | `encoded-image` | a whole JPEG, PNG, … file: bytes or a reference          |
| Audio        | `audio`         | samples: list, tensor [n] or [n, channels]; WAV: bytes   |
| Video        | `video`         | a reference (or bytes)                                   |
| PointCloud   | `point-cloud`   | tensor [n, fields]; list of n * fields numbers           |
| Tokens       | `tokens`        | list or tensor [n] of whole numbers                      |
| Text         | `text`          | text                                                     |
| Tensor       | `tensor`        | tensor of this shape and dtype; shape (None,): a list    |
| Category     | `category`      | whole numbers that count in `names`, or the names        |
| Timestamp    | `timestamp`     | numbers counted in `unit`, or time                       |
| Key          | `key`           | whole numbers, text or bytes: names the sample           |
| Episode      | `episode`       | whole numbers, text or bytes: rows of one belong together |

A type is data: its fields are the `options` of the column. It never changes values; `decode` turns
an encoded one into numbers when they are wanted.
"""

from __future__ import annotations

from penstock.data.types.applying import (
    apply_types,
    check_values,
    infer_types,
    mark_key,
    refuse_wrong,
    varying,
)
from penstock.data.types.base import Type, Types, describe
from penstock.data.types.sheets import (
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
    Video,
    type_of,
)

__all__ = [
    "TYPES",
    "Audio",
    "Category",
    "EncodedImage",
    "Episode",
    "Image",
    "Key",
    "PointCloud",
    "Tensor",
    "Text",
    "Timestamp",
    "Tokens",
    "Type",
    "Types",
    "Video",
    "apply_types",
    "check_values",
    "describe",
    "infer_types",
    "mark_key",
    "refuse_wrong",
    "type_of",
    "varying",
]
