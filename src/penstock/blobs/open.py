"""From a URL to a blob store."""

from __future__ import annotations

from pathlib import Path

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean
from penstock.blobs.port import Blobs

SCHEMES = ("file", "memory", "s3", "gs", "az")


def open_blobs(url: str) -> Blobs:
    """Open the store at `url`; nothing is created before the first `put`.

    file:///PATH  a folder, by absolute path, taken literally (no percent escapes)
    memory://     a new store in this process; its own `url` finds it again in this process
    s3://BUCKET/PREFIX, gs://…, az://…  an object store; no request is sent before it is used

    Raises BadInput for anything else. docs/blobs.md has the options of object stores.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise BadInput(
            f'"{url}" is not the URL of a blob store that Penstock knows',
            did_you_mean(scheme, SCHEMES) + " Write file:///PATH, s3://BUCKET/PREFIX or memory://.",
            url=url,
        )
    if scheme == "memory":
        from penstock.blobs.memory import open_memory

        return open_memory(rest)
    if scheme != "file":
        from penstock.blobs.remote import RemoteBlobs
        from penstock.blobs.remote.address import parse

        return RemoteBlobs(parse(url))
    if not rest.startswith("/"):
        raise BadInput(
            f'"{url}" has no absolute path',
            "Write three slashes before the path: file:///srv/penstock/blobs.",
            url=url,
        )
    from penstock.blobs.local import LocalBlobs

    return LocalBlobs(Path(rest))
