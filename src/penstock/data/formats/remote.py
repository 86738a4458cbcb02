"""Files in an object store, by URL: `s3://BUCKET/KEY`, through obstore (the extra `s3`).

Only ranges that are asked for are read. An object's stamp is its ETag. Credentials come from where
they always do (AWS_* variables, the instance); options that are no secret may be given as
`storage={"endpoint": …, "region": …}` and travel with the source.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from penstock.base.errors import BadInput, MissingExtra, Unavailable
from penstock.base.nearest import did_you_mean

SCHEMES = ("s3://",)
_BUFFER = 8 << 20  # bytes of one request, unless more are asked for at once
_OPTIONS = {
    "endpoint",
    "region",
    "virtual_hosted_style_request",
    "skip_signature",
    "allow_http",
}
_stores: dict[tuple[int, str, tuple[tuple[str, Any], ...]], Any] = {}


def is_remote(uri: str) -> bool:
    return uri.startswith(SCHEMES)


def check(storage: Mapping[str, Any]) -> None:
    """Raise BadInput for options that there are not, and for secrets."""
    for name in storage:
        if name in _OPTIONS:
            continue
        if any(word in name.lower() for word in ("secret", "key", "token", "password")):
            raise BadInput(
                f'storage holds "{name}", a secret that would travel with the dataset',
                "Give it as the environment does: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.",
            )
        raise BadInput(f'storage has no option "{name}"', did_you_mean(name, _OPTIONS))


def look(uri: str, storage: Mapping[str, Any]) -> tuple[int, str]:
    """(size, stamp) of an object. Raises BadInput when it is not there."""
    store, key = _open(uri, storage)
    import obstore

    with _errors(uri):
        found = obstore.head(store, key)
    return found["size"], _stamp(found)


def open_bytes(uri: str, storage: Mapping[str, Any]) -> BinaryIO:
    """A seekable stream that reads ranges; a seek costs nothing."""
    size, _ = look(uri, storage)
    return cast(BinaryIO, io.BufferedReader(_Ranges(uri, storage, size), _BUFFER))


def read_whole(uri: str, storage: Mapping[str, Any]) -> tuple[bytes, str]:
    """(bytes, stamp) of a small object, with one request."""
    store, key = _open(uri, storage)
    import obstore

    with _errors(uri):
        found = obstore.get(store, key)
        return bytes(found.bytes()), _stamp(found.meta)


def listing(url: str, storage: Mapping[str, Any]) -> list[tuple[str, str, int, str]]:
    """(name, URL, size, stamp) of an object, of all below a prefix, or of those a glob matches.

    Raises BadInput: nothing there.
    """
    store, key = _open(url, storage)
    bucket = url[: len(url) - len(key)]
    start, wanted = _pattern(key)
    if wanted is None and key and not key.endswith("/"):
        if (found := _one(store, key, url)) is not None:
            return [(key.rpartition("/")[2], url, found["size"], _stamp(found))]
        start = key + "/"
    result = []
    for each in _below(store, start, url):
        name = each["path"][len(start) :]
        hidden = any(part.startswith(".") for part in name.split("/"))
        if each["size"] and not hidden and (wanted is None or wanted.fullmatch(name)):
            result.append((name, bucket + each["path"], each["size"], _stamp(each)))
    if not result:
        raise BadInput(f"there is nothing at {url}", "Check bucket, prefix and pattern.", url=url)
    return sorted(result)


class _Ranges(io.RawIOBase):
    """An object as a file; each read is one request."""

    def __init__(self, uri: str, storage: Mapping[str, Any], size: int) -> None:
        self._store, self._key = _open(uri, storage)
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
        length = min(len(view), self._size - self._at)
        if length <= 0:
            return 0
        import obstore

        with _errors(self._uri):
            data = obstore.get_range(self._store, self._key, start=self._at, length=length)
        view[: len(data)] = memoryview(data)
        self._at += len(data)
        return len(data)


def _open(uri: str, storage: Mapping[str, Any]) -> tuple[Any, str]:
    """(store of the bucket, key); a store is made once per process."""
    try:
        from obstore.store import S3Store
    except ImportError:
        raise MissingExtra(
            f"reading {uri} needs obstore", 'Install it: pip install "penstock[s3]".', extra="s3"
        ) from None
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise BadInput(f"{uri} names no bucket", "Write it as s3://BUCKET/PREFIX.")
    check(storage)
    mark = (os.getpid(), bucket, tuple(sorted(storage.items())))
    if mark not in _stores:
        options = dict(storage)
        http = bool(options.pop("allow_http", False))
        if str(options.get("endpoint", os.environ.get("AWS_ENDPOINT_URL", ""))).startswith("http:"):
            http = True
        if "endpoint" not in options and "AWS_ENDPOINT_URL" in os.environ:
            options["endpoint"] = os.environ["AWS_ENDPOINT_URL"]
        client = {"allow_http": True} if http else None
        _stores[mark] = S3Store(bucket, config=cast(Any, options), client_options=cast(Any, client))
    return _stores[mark], key


def _stamp(found: Mapping[str, Any]) -> str:
    return str(found.get("e_tag") or f"{found['size']}-{found['last_modified']}").strip('"')


def _one(store: Any, key: str, url: str) -> Any:
    import obstore

    try:
        with _errors(url):
            return obstore.head(store, key)
    except BadInput:
        return None


def _below(store: Any, prefix: str, url: str) -> Iterator[Any]:
    import obstore

    with _errors(url):
        for chunk in obstore.list(store, prefix=prefix.rstrip("/") or None):
            yield from (each for each in chunk if each["path"].startswith(prefix))


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


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    """obstore's errors in the family's words."""
    from obstore import exceptions

    try:
        yield
    except FileNotFoundError:
        raise BadInput(
            f"{uri} is not there", "Check bucket and key, or list the files again.", path=uri
        ) from None
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise Unavailable(
            f"{uri} may not be read: {_short(error)}",
            "Check the credentials: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or the role.",
            path=uri,
        ) from None
    except exceptions.BaseError as error:
        raise Unavailable(
            f"{uri} cannot be read: {_short(error)}",
            "Check address, region and credentials, then run again.",
            path=uri,
        ) from None


def _short(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:300]
