"""The script's settings in a worker on another machine, and whether they lead to its stores there.

Rows in a file and blobs in a folder are reached where the very same lie under the same path; a
worker that made new ones there would train for nobody.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.base.errors import BadInput
from penstock.base.layout import Layout
from penstock.base.settings import PREFIX, Settings, load_settings
from penstock.jobs.stores import Stores, open_stores

_KEY = "ray-train/stores"
_KIND = "stores"
_STAY = {"engine", "token"}  # what no rank has a use for
_HOME, _META, _BLOBS = (f"{PREFIX}{name}" for name in ("HOME", "META", "BLOBS"))
_FILES = ("sqlite://", "file://")
_FIX = (
    "All workers have to reach the same rows and bytes: in penstock.toml beside the script, "
    'meta = "postgresql://…", and blobs = "s3://…" or a file:// URL of a disk that all mount.'
)


@dataclass(frozen=True, slots=True)
class Mark:
    """name  stands in the meta store
    blob  lies in the blob store
    """

    name: str
    blob: str


def mark(stores: Stores) -> Mark:
    """By which these stores are told from others; made when it is first asked for."""
    with stores.meta.read() as db:
        known = db.recall(_KEY)
    name = secrets.token_hex(16) if known is None else str(known["name"])
    blob = stores.blobs.put(name.encode())
    with stores.meta.write() as tx:
        tx.remember(_KEY, _KIND, {"name": name}, [blob])  # the first one stays
        found = tx.recall(_KEY)
    if found is not None and found["name"] != name:
        return mark(stores)
    return Mark(name, blob)


def variables(stores: Stores) -> dict[str, str]:
    """The settings that are not as they are by default, as variables of an environment."""
    settings = stores.settings
    told = settings.model_dump(mode="json", exclude_defaults=True, exclude=_STAY)
    told["home"] = str(settings.home)
    if settings.meta is not None:
        told["meta"] = stores.meta.url
    if settings.blobs is not None:
        told["blobs"] = stores.blobs.url
    if settings.tensorboard is not None:
        told["tensorboard"] = str(settings.tensorboard.absolute())
    return {PREFIX + key.upper(): _text(value) for key, value in sorted(told.items())}


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}={size}B" for key, size in value.items())
    return str(value)


@contextmanager
def settings_of(told: Mapping[str, str]) -> Iterator[None]:
    """Inside, this process has the script's settings. A home that is not there, and that neither
    rows nor bytes lie in, is a folder of this machine's own."""
    names = [PREFIX + name.upper() for name in Settings.model_fields]
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ.update(told)
    far = all(name in told and not told[name].startswith(_FILES) for name in (_META, _BLOBS))
    if far and not Path(told[_HOME]).is_dir():
        os.environ[_HOME] = str(_own_home())
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


def _own_home() -> Path:
    from penstock.jobs.backends.hosting import node_home

    home = node_home()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return home


def check(wanted: Mark) -> None:
    """Raises BadInput where the settings do not lead to the stores that have the mark, and what
    opening them raises. Makes no store."""
    settings = load_settings()
    layout = Layout(settings.home)
    meta, blobs = settings.meta or layout.meta_url, settings.blobs or layout.blobs_url
    for what, url in (("rows", meta), ("bytes", blobs)):
        place = Path("/" + url.partition("://")[2].partition("?")[0].lstrip("/"))
        if url.startswith(_FILES) and not place.exists():
            raise _elsewhere(f"there is no {place} here", what)
    with open_stores(settings) as stores:
        with stores.meta.read() as db:
            known = db.recall(_KEY)
        if known is None or known["name"] != wanted.name:
            raise _elsewhere("what its settings lead to is another store", "rows")
        if not stores.blobs.exists(wanted.blob):
            raise _elsewhere("what its settings lead to is another store", "bytes")


def _elsewhere(why: str, what: str) -> BadInput:
    return BadInput(
        f"this worker of Ray Train, on {socket.gethostname()}, does not reach the script's {what}: "
        + why,
        _FIX,
        host=socket.gethostname(),
    )
