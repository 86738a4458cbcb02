"""Files in an object store, by URL: `s3://BUCKET/KEY`, through obstore (the extra `s3`).

Only ranges that are asked for are read; the stamp of an object is its ETag.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from penstock.base.errors import MissingExtra

SCHEMES = ("s3://",)


def is_remote(uri: str) -> bool:
    return uri.startswith(SCHEMES)


def look(uri: str, storage: dict[str, Any]) -> tuple[int, str]:
    raise _missing(uri)


def open_bytes(uri: str, storage: dict[str, Any]) -> BinaryIO:
    raise _missing(uri)


def read_whole(uri: str, storage: dict[str, Any]) -> tuple[bytes, str]:
    raise _missing(uri)


def listing(url: str, storage: dict[str, Any]) -> list[tuple[str, str, int, str]]:
    raise _missing(url)


def _missing(uri: str) -> MissingExtra:
    return MissingExtra(
        f"reading {uri} needs obstore", 'Install it: pip install "penstock[s3]".', extra="s3"
    )
