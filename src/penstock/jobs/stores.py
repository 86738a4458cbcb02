"""The stores of a home, opened together: what most rooms take as their first argument."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from penstock.base.files import os_errors
from penstock.base.layout import Layout
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
        """Close the meta store's connections; blobs hold nothing open."""
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
    except BaseException:
        meta.close()
        raise
    return Stores(settings, layout, meta, blobs)


def _make_home(root: Path) -> None:
    """The folder, and in it a .gitignore, so that no state is ever committed by accident."""
    with os_errors("making the home", root):
        root.mkdir(parents=True, exist_ok=True)
        ignore = root / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
