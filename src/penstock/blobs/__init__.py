"""All that is large, by content: immutable bytes under their digest."""

from penstock.blobs.open import open_blobs
from penstock.blobs.port import Blobs, Stat

__all__ = ["Blobs", "Stat", "open_blobs"]
