"""References: large values that stay where they are and are read by ranges.

In Arrow a struct of three fields, so that any reader understands it:

    uri     string  a path, a URL (file, s3, gs, az), or `sha256:…` for a blob of the dataset's own
                    store
    start   int64   first byte
    length  int64   how many bytes; missing: up to the end

A blob that a version names this way lives as long as the version: the manifest's table "objects"
lists it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from penstock.base.errors import BadInput, NotFound, Unavailable
from penstock.base.hashing import is_digest
from penstock.blobs import open_blobs

REFERENCE = pa.struct([("uri", pa.string()), ("start", pa.int64()), ("length", pa.int64())])
OBJECTS_SCHEMA = pa.schema([("digest", pa.string())])


@dataclass(frozen=True, slots=True)
class Reference:
    """A range of bytes that lies elsewhere.

    start, length  bytes; without a length up to the end
    store          URL of the blob store that a `sha256:…` is read from; "" until it is known
    """

    uri: str
    start: int = 0
    length: int | None = None
    store: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.start < 0 or (self.length is not None and self.length < 0):
            raise BadInput(
                f"a reference to {self.uri} from byte {self.start} over {self.length} bytes",
                "Start and length count bytes from 0 on.",
                uri=self.uri,
            )

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        """Bytes start..start+length-1 of the range, cut at its end; all of them by default.

        Raises NotFound, Unavailable, BadInput (no address that Penstock knows).
        """
        if start < 0 or (length is not None and length < 0):
            raise BadInput(f"no bytes {start}, {length} to read", "Count bytes from 0 on.")
        if self.length is not None:
            room = max(0, self.length - start)
            length = room if length is None else min(length, room)
        at = self.start + start
        if is_digest(self.uri):
            return self._read_blob(at, length)
        if (path := self.path) is not None:
            return _read_file(path, at, length)
        return _read_url(self.uri, at, length)

    @property
    def path(self) -> Path | None:
        """The local file that it names; None for a blob or a URL elsewhere."""
        if is_digest(self.uri):
            return None
        if self.uri.startswith("file://"):
            return Path(unquote(urlsplit(self.uri).path))
        return None if re.match(r"[a-z][a-z0-9+.-]+://", self.uri) else Path(self.uri)

    def _read_blob(self, at: int, length: int | None) -> bytes:
        if not self.store:
            raise BadInput(
                f"this reference names blob {self.uri} but no store to read it from",
                "Take it from a dataset, or give the URL: Reference(…, store=blobs.url).",
                uri=self.uri,
            )
        return open_blobs(self.store).read(self.uri, at, length)


def _read_file(path: Path, at: int, length: int | None) -> bytes:
    try:
        with path.open("rb") as stream:
            stream.seek(at)
            return stream.read(-1 if length is None else length)
    except FileNotFoundError:
        raise NotFound(
            f"{path}, which a dataset refers to, is not there",
            "Restore the file; a reference does not keep what it names, unless it is a blob.",
            uri=str(path),
        ) from None
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error}", "", uri=str(path)) from None


def _read_url(url: str, at: int, length: int | None) -> bytes:
    from penstock.data.formats.remote import is_remote, open_bytes  # few columns need a network

    if not is_remote(url):
        raise BadInput(
            f"{url} cannot be read: Penstock knows no such addresses",
            "Refer to a path, a file://, s3://, gs:// or az:// URL, or a blob (sha256:…).",
            uri=url,
        )
    try:
        with open_bytes(url, 0) as stream:
            stream.seek(at)
            return stream.read(-1 if length is None else length)
    except BadInput as error:
        raise NotFound(f"{error.what}, but a dataset refers to it", error.fix, uri=url) from None


def reference_of(value: Mapping[str, Any] | None, store: str = "") -> Reference | None:
    """The reference that an Arrow value is; None for a missing one."""
    if value is None:
        return None
    return Reference(value["uri"], value["start"] or 0, value["length"], store)


def references_array(values: list[Reference | None]) -> pa.Array:
    """References as Arrow."""
    return pa.array(
        [v and {"uri": v.uri, "start": v.start, "length": v.length} for v in values], REFERENCE
    )


class Objects:
    """Gathers the blobs that reference columns name: `add` every block, then `table`."""

    def __init__(self) -> None:
        self._digests: set[str] = set()

    def add(self, table: pa.Table) -> None:
        """Look at the reference columns of a table."""
        for name, kind in zip(table.schema.names, table.schema.types, strict=True):
            if kind == REFERENCE:
                for chunk in table[name].chunks:
                    uris = chunk.field("uri").unique().to_pylist()
                    self._digests.update(uri for uri in uris if uri and is_digest(uri))

    def table(self) -> pa.Table | None:
        """What the manifest's table "objects" holds: each digest once, sorted; None for none."""
        if not self._digests:
            return None
        return pa.table([sorted(self._digests)], schema=OBJECTS_SCHEMA)
