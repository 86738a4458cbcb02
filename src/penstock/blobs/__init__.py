"""All that is large, by content: immutable bytes under their digest."""

from penstock.blobs.behind import Behind
from penstock.blobs.open import open_blobs
from penstock.blobs.port import Begun, Blobs, Stat
from penstock.blobs.probing import Probed, probe

__all__ = ["Begun", "Behind", "Blobs", "Probed", "Stat", "open_blobs", "probe"]
