"""Whether a blob store can be used from here, tried out: for `penstock doctor`."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

from penstock.base.errors import Unavailable
from penstock.base.ids import new_id
from penstock.blobs.open import open_blobs

_PATIENCE = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class Probed:
    """conditional: whether writes that must not overwrite are honoured; None where there are none.

    seconds   of one small read
    """

    url: str
    seconds: float
    conditional: bool | None


def probe(url: str) -> Probed:
    """Try a store. A folder is only looked at; an object store gets an object, removed at once.

    Raises what the store raises: StoreUnreachable after 5 s, NoCredentials, AccessDenied,
    NoSuchBucket, ClockSkew, BadInput; Unavailable when it does not give back what was written.
    """
    if url.startswith(("file://", "memory://")):
        began = time.perf_counter()
        blobs = open_blobs(url)
        if url.startswith("file://") and Path(url.removeprefix("file://")).exists():
            next(blobs.list(), None)
        return Probed(url, time.perf_counter() - began, None)
    return _probe_remote(url)


def _probe_remote(url: str) -> Probed:
    from penstock.blobs.remote.address import parse
    from penstock.blobs.remote.client import Client

    client = Client(dataclasses.replace(parse(url), deadline=_PATIENCE, timeout=_PATIENCE))
    key, data = f"tmp/probe~{new_id()}", memoryview(b"penstock doctor")
    next(client.list("tmp"), None)
    client.create(key, data)
    try:
        second = client.create(key, data)
        began = time.perf_counter()
        found = client.get(key, 0, 100)
        seconds = time.perf_counter() - began
    finally:
        client.delete(key)
    if found is None or found.data != data:
        raise Unavailable(
            f"{url} does not give back what was written a moment ago",
            "See that the endpoint is an object store, and that nothing between changes answers.",
            url=url,
        )
    return Probed(client.address.url, seconds, second != "written")
