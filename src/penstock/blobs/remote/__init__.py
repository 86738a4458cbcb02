"""Blobs in an object store: S3, Google Cloud Storage, Azure, over obstore."""

from penstock.blobs.remote.counters import Counters
from penstock.blobs.remote.engine import RemoteBlobs

__all__ = ["Counters", "RemoteBlobs"]
