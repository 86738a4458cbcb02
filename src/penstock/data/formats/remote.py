"""Files in an object store, by the URLs that the blob store takes, too: `s3://BUCKET/KEY`, gs, az,
with `?endpoint=…&region=…` for other servers. Credentials come from the environment.

Requests are the blob store's: retried with a budget, hedged, safe after a fork. Only ranges that
are asked for are read. An object's stamp is its ETag.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from penstock.base.errors import BadInput
from penstock.blobs.remote.address import SCHEMES, Address, parse
from penstock.blobs.remote.client import Client, Meta

_OPTIONS = re.compile(r"\?(?=\w+=[^?]*$)")  # a ? elsewhere is part of a pattern
_clients: dict[Address, Client] = {}


def is_remote(uri: str) -> bool:
    return uri.partition("://")[0] in SCHEMES


def without_options(url: str) -> str:
    """A URL up to its options."""
    return _OPTIONS.split(url, maxsplit=1)[0]


def look(uri: str) -> tuple[int, str]:
    """(size, stamp) of an object. Raises BadInput when it is not there."""
    client, key = _open(uri)
    found = client.head(key)
    if found is None:
        raise _missing(uri)
    return found.size, _stamp(found)


def exists(uri: str) -> bool:
    client, key = _open(uri)
    return bool(key) and client.head(key) is not None


def below(uri: str) -> dict[str, tuple[int, str]]:
    """All objects below a prefix, hidden and empty ones too: name -> (size, stamp)."""
    client, key = _open(uri)
    start = key.rstrip("/") + "/" if key.rstrip("/") else ""
    found = sorted(_below(client, start), key=lambda each: each.key)
    return {each.key[len(start) :]: (each.size, _stamp(each)) for each in found}


def get(uri: str, name: str, start: int, end: int) -> memoryview:
    """Bytes start..end of an object below a prefix. Raises BadInput when it is not there."""
    client, key = _open(uri)
    key = f"{key.rstrip('/')}/{name}".lstrip("/")
    piece = client.get(key, start, end)
    if piece is None:
        raise _missing(f"{without_options(uri).rstrip('/')}/{name}")
    return piece.data


def open_bytes(uri: str, ahead: int) -> BinaryIO:
    """A seekable stream that reads ranges; a seek costs nothing.

    ahead  bytes of one request, unless more are asked for at once; 0 for no more than is asked for
    """
    size, _ = look(uri)
    ranges = _Ranges(uri, size)
    return cast(BinaryIO, io.BufferedReader(ranges, ahead) if ahead else ranges)


def listing(url: str) -> list[tuple[str, str, int, str]]:
    """(name, URL, size, stamp) of an object, of all below a prefix, or of those a glob matches.

    Raises BadInput: nothing there.
    """
    client, key = _open(url)
    plain = without_options(url)
    bucket, options = plain[: len(plain) - len(key)], url[len(plain) :]
    start, wanted = _pattern(key)
    if wanted is None and key and not key.endswith("/"):
        if (one := client.head(key)) is not None:
            return [(key.rpartition("/")[2], url, one.size, _stamp(one))]
        start = key + "/"
    result = []
    for each in _below(client, start):
        name = each.key[len(start) :]
        hidden = any(part.startswith(".") for part in name.split("/"))
        if each.size and not hidden and (wanted is None or wanted.fullmatch(name)):
            result.append((name, bucket + each.key + options, each.size, _stamp(each)))
    if not result:
        raise BadInput(f"there is nothing at {url}", "Check bucket, prefix and pattern.", url=url)
    return sorted(result)


class _Ranges(io.RawIOBase):
    """An object as a file; each read is one request."""

    def __init__(self, uri: str, size: int) -> None:
        self._client, self._key = _open(uri)
        self._uri = uri
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._at + len(view), self._size)
        if end <= self._at:
            return 0
        piece = self._client.get(self._key, self._at, end)
        if piece is None:
            raise _missing(self._uri)
        count = piece.data.nbytes
        view[:count] = piece.data.cast("B")
        self._at += count
        return count


def _open(uri: str) -> tuple[Client, str]:
    """(client of the bucket, key); a client is made once."""
    plain = without_options(uri)
    scheme, _, rest = plain.partition("://")
    bucket, _, key = rest.partition("/")
    address = parse(f"{scheme}://{bucket}{uri[len(plain) :]}")
    if address not in _clients:
        _clients[address] = Client(address)
    return _clients[address], key


def _missing(uri: str) -> BadInput:
    return BadInput(
        f"{uri} is not there",
        "Check bucket and key, or list the files again.",
        path=uri,
        gone=True,
    )


def _stamp(found: Meta) -> str:
    return found.etag or f"{found.size}-{found.modified}"


def _below(client: Client, prefix: str) -> Iterator[Meta]:
    """All objects whose keys begin so; obstore's prefixes are whole parts of a key."""
    for page in client.list(prefix.rstrip("/")):
        yield from (each for each in page if each.key.startswith(prefix))


def _pattern(key: str) -> tuple[str, re.Pattern[str] | None]:
    """(prefix up to the first part with a pattern, what names below it match)."""
    parts = key.split("/")
    for number, part in enumerate(parts):
        if any(sign in part for sign in "*?["):
            head = "/".join(parts[:number])
            return head + "/" if head else "", re.compile(_regex(parts[number:]))
    return key, None


def _regex(parts: list[str]) -> str:
    found = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            found.append(".*" if last else "(?:.*/)?")
            continue
        text = re.escape(part).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        text = text.replace(r"\[", "[").replace(r"\]", "]").replace(r"\-", "-")
        found.append(text + ("" if last else "/"))
    return "".join(found)
