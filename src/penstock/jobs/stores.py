"""The stores of a home, opened together: what most rooms take as their first argument."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from penstock.base.errors import PenstockError
from penstock.base.files import os_errors
from penstock.base.layout import Layout
from penstock.base.process import Identity
from penstock.base.settings import Settings, load_settings
from penstock.blobs import Blobs, open_blobs
from penstock.meta import Meta, open_meta


@dataclass(frozen=True)
class Stores:
    """An open home. Safe for many threads; opened anew after a fork and in every process."""

    settings: Settings
    layout: Layout
    meta: Meta
    blobs: Blobs

    def close(self) -> None:
        """Close the meta store's connections; blob stores end with the process."""
        self.meta.close()

    def __enter__(self) -> Stores:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_stores(settings: Settings | None = None) -> Stores:
    """Open the home that the settings name, making its folder when it is not there yet.

    Raises what `open_meta` and `open_blobs` raise (NetworkHome, NewerSchema, ReadOnly, DiskFull,
    …); a home that is refused is not touched.
    """
    settings = settings or load_settings()
    layout = Layout(settings.home)
    blobs = open_blobs(settings.blobs or layout.blobs_url)
    meta = open_meta(settings.meta or layout.meta_url)  # refuses before anything is made
    try:
        _make_home(layout.root)
        _say_cache_limits(layout, settings)
    except BaseException:
        meta.close()
        raise
    return Stores(settings, layout, meta, blobs)


@contextmanager
def pinned(meta: Meta) -> Iterator[None]:
    """While inside, garbage collection keeps whatever this process finds or writes.

    The pin of a process that dies ends with it, so nothing has to be tidied up after a kill.
    """
    with meta.write() as tx:
        pin = tx.pin(str(Identity.mine()))
    try:
        yield
    finally:
        with suppress(PenstockError), meta.write() as tx:
            tx.unpin(pin)


def _make_home(root: Path) -> None:
    """The folder, and in it a .gitignore, so that no state is ever committed by accident."""
    with os_errors("making the home", root):
        root.mkdir(parents=True, exist_ok=True)
        ignore = root / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")


def _say_cache_limits(layout: Layout, settings: Settings) -> None:
    """Ranks and workers know the home, not the settings: so the home says what they may take.

    A dataset whose quota is gone gives up its part: files may go at any time, maps of them stay.
    """
    name, quotas = layout.cache_limit.name, settings.cache_quotas
    room = settings.cache_bytes
    _say(layout.cache_limit, "" if room is None else str(room - sum(quotas.values())))
    disk = settings.checkpoint_disk_bytes
    _say(layout.staged_limit, "" if disk is None else str(disk))
    parts = {layout.quota_of(dataset): size for dataset, size in quotas.items()}
    for part, size in parts.items():
        _say(part / name, str(size))
    for part in set(layout.cache_quotas.glob("*")) - parts.keys():
        with suppress(OSError):
            (part / name).unlink(missing_ok=True)  # from now on nobody opens it as a part
        shutil.rmtree(part, ignore_errors=True)


def _say(path: Path, text: str) -> None:
    with os_errors("writing the limit of the cache", path):
        if text == (path.read_text() if path.is_file() else ""):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
