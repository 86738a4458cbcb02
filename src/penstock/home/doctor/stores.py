"""Settings, the home's folder, and the two stores."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from penstock.base.project import FILE, project_folder
from penstock.base.settings import PREFIX, Settings
from penstock.home.doctor.here import existing
from penstock.home.views import Check
from penstock.jobs.machine import mount_list


def settings_in_use(settings: Settings) -> Iterator[Check]:
    """Which settings differ from their defaults; never the value of a secret."""
    path = project_folder() / FILE
    variables = sorted(
        key
        for key in os.environ
        if key.startswith(PREFIX) and key.removeprefix(PREFIX).lower() in Settings.model_fields
    )
    sources = ([str(path)] if path.is_file() else []) + variables
    changed = {
        name: "***" if name == "token" else _without_secrets(str(getattr(settings, name)))
        for name, field in Settings.model_fields.items()
        if name != "home" and getattr(settings, name) != field.default
    }
    text = ", ".join(f"{key}={value}" for key, value in changed.items()) or "all default"
    origin = f"from {', '.join(sources)}" if sources else f"no {FILE}, no {PREFIX}*"
    yield Check("settings", "ok", f"{text} ({origin})", facts={"sources": sources, **changed})


def _without_secrets(text: str) -> str:
    """A URL without the user and the password that it should not have, or has (PostgreSQL)."""
    return re.sub(r"://[^/@]*@", "://***@", text)


def home_folder(settings: Settings) -> Iterator[Check]:
    """Where the home lies, whether it can be written, and on which kind of file system."""
    from penstock.meta.network import file_system, refuse_network

    home = settings.home
    nearest = existing(home).resolve()
    kind, mount = file_system(nearest, mount_list())
    facts = {"path": str(home), "file_system": kind, "mount": mount}
    if settings.meta is None:
        refuse_network(home)
    writable = os.access(nearest, os.W_OK) and not os.statvfs(nearest).f_flag & os.ST_RDONLY
    if not writable:
        fix = "Make it writable, or set PENSTOCK_HOME to another folder."
        yield Check(
            "home",
            "fail",
            f"{home} cannot be written ({kind or 'unknown file system'})",
            fix,
            facts,
        )
        return
    state = "" if home.exists() else ", not made yet"
    yield Check("home", "ok", f"{home} on {kind}{state}", facts=facts)


def meta_store(settings: Settings) -> Iterator[Check]:
    """Whether the home's schema is one that this Penstock knows; an older one is left as it is."""
    from penstock.base.layout import Layout
    from penstock.meta import open_meta, schema, schema_of

    url = settings.meta or Layout(settings.home).meta_url
    version = schema_of(url)
    if version is None:
        yield Check("meta", "ok", "nothing stored yet")
        return
    if version != schema.HEAD:
        text = f"schema {version}; the next command brings it to {schema.HEAD}"
        yield Check("meta", "ok", text, facts={"schema": version})
        return
    meta = open_meta(url)
    try:
        with meta.read() as reader:
            skew, events = abs(reader.now() - time.time()), reader.last_event()
    finally:
        meta.close()
    text = f"schema {schema.HEAD}, newest event {events}"
    yield Check("meta", "ok", text, facts={"newest_event": events})
    if skew > 2:
        fix = "Synchronise this machine's clock (chrony, systemd-timesyncd)."
        yield Check("clock", "warn", f"{skew:.0f} s apart from the meta store's", fix)


def blob_store(settings: Settings) -> Iterator[Check]:
    """Whether the store answers, takes the credentials and honours conditional writes."""
    from penstock.base.layout import Layout
    from penstock.blobs import probe

    found = probe(settings.blobs or Layout(settings.home).blobs_url)
    facts = {"url": found.url, "seconds": found.seconds, "conditional": found.conditional}
    if found.conditional is None:
        yield Check("blobs", "ok", found.url, facts=facts)
        return
    text = f"{found.url} answers in {found.seconds * 1e3:.0f} ms, takes the credentials"
    if found.conditional:
        yield Check("blobs", "ok", f"{text}, honours conditional writes", facts=facts)
    else:
        fix = "Nothing is lost, but what exists already is written again; see docs/blobs.md."
        yield Check("blobs", "warn", f"{text}, but ignores conditional writes", fix, facts)


def clock(settings: Settings) -> Iterator[Check]:
    """A clock that is years off breaks leases for people and TLS for machines."""
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    newest = max((path.stat().st_mtime for path in _newest_files(settings)), default=0.0)
    if newest > time.time() + 60:
        fix = "Set this machine's clock; ages and take-overs are wrong until then."
        yield Check("clock", "warn", f"{text}, but the home has files from the future", fix)
    else:
        yield Check("clock", "ok", text)


def _newest_files(settings: Settings) -> list[Path]:
    candidates = (settings.home / "meta.db", settings.home / "meta.db-wal")
    return [path for path in candidates if path.exists()]
