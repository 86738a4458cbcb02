"""Raw files read in place: one way to list, digest and read them, whatever the format."""

from penstock.data.formats.opening import FORMATS, open_source
from penstock.data.formats.port import BLOCK_BYTES, BadRecord, Block, Input, InputSource

__all__ = [
    "BLOCK_BYTES",
    "FORMATS",
    "BadRecord",
    "Block",
    "Input",
    "InputSource",
    "open_source",
]
