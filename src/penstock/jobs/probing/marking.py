"""Whether a folder is one and the same on several machines: a file made here is seen there."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SCHEME = "file://"


@contextmanager
def marked(url: str) -> Iterator[str | None]:
    """A file in the folder of a store while the context is open; gives its path. None: the store
    is no folder, or is not made yet."""
    folder = Path(url.removeprefix(_SCHEME))
    if not url.startswith(_SCHEME) or not folder.is_dir():
        yield None
        return
    path = folder / f".probe-{secrets.token_hex(8)}"
    try:
        with suppress(OSError):
            path.touch()
        yield str(path) if path.exists() else None
    finally:
        path.unlink(missing_ok=True)


def is_seen(path: str | None) -> bool | None:
    """Whether it is there; None: there is nothing to be seen."""
    return None if path is None else Path(path).exists()
