"""`penstock doctor --cluster`: the stores and the nodes that the settings name, tried out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from penstock.base.errors import PenstockError
from penstock.base.layout import Layout
from penstock.base.settings import Settings
from penstock.home.doctor import judging, stores
from penstock.home.views import Check
from penstock.jobs.backends import engines
from penstock.jobs.probing import here, marking
from penstock.jobs.probing.asking import Asking

Tell = Callable[[str], None]  # what is being done
PATIENCE = 60.0  # seconds for the answer of a node
_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_SLOW = 0.1  # seconds of a question to the database, from which it is said
_FEW = 8  # connections that are left, from which it is said


def look(settings: Settings, patience: float, tell: Tell) -> list[Check]:
    """Every finding; those of nodes have their name. Never raises, and takes `patience` for each
    step of what is asked of nodes at most."""
    found: list[Check] = []
    apart: list[float] = []
    tell("looking at rows and blobs")
    parts: tuple[tuple[str, Callable[[], Iterator[Check]]], ...] = (
        ("engine", lambda: _engine(settings)),
        ("meta", lambda: _meta(settings, apart)),
        ("blobs", lambda: stores.blob_store(settings)),
    )
    for name, part in parts:
        found += _looked(name, part)
    if not any(each.name == "engine" and each.state == "fail" for each in found):
        found += _looked("nodes", lambda: _nodes(settings, patience, apart, tell))
    return found


def _looked(name: str, part: Callable[[], Iterator[Check]]) -> list[Check]:
    found: list[Check] = []
    try:
        found.extend(part())
    except PenstockError as error:
        facts = {"code": error.code, **error.facts}
        found.append(Check(name, "fail", error.what, error.fix or "See what it says.", facts))
    except Exception as error:  # noqa: BLE001 - the doctor must finish
        text = f"cannot be looked at: {type(error).__name__}: {error}"
        found.append(Check(name, "fail", text, "Tell us: this is not expected."))
    return found


def is_elsewhere(settings: Settings) -> bool:
    """Whether there is a cluster that can be asked: one that is started for a run ends with it."""
    engine = settings.engine
    return engines.is_ray(engine) and _address(engine) != "local"


def _address(engine: str) -> str:
    return engines.address_of(engine, os.environ.get("RAY_ADDRESS"))


def _engine(settings: Settings) -> Iterator[Check]:
    engines.check(settings)
    engine = settings.engine
    if engine == "processes":
        text = "processes: ranks run on this machine; `penstock doctor` has the rest of it"
    elif (hosts := engines.hosts_of(engine)) is not None:
        text = f"{engine}: {hosts[0]} agents on this machine, as if each were a machine"
    elif is_elsewhere(settings):
        text = f"{engine}: the Ray cluster at {_address(engine)}"
    else:
        text = "ray without RAY_ADDRESS: a cluster on this machine for each run, ended with it"
    yield Check("engine", "ok", text, facts={"engine": engine})


# -- rows -------------------------------------------------------------------------------------


def _meta(settings: Settings, apart: list[float]) -> Iterator[Check]:
    """apart  gets the seconds that this machine is ahead of the database, when they are known"""
    from penstock.meta import probe, schema

    found = probe(settings.meta or Layout(settings.home).meta_url)
    state = f"schema {found.schema}" if found.schema else "no tables yet"
    if found.schema not in (None, schema.HEAD):
        state += f", which the next command brings to {schema.HEAD}"
    facts: dict[str, Any] = {"schema": found.schema}
    vitals = found.vitals
    if vitals is None:
        text = f"{found.shown}, {state}: scripts on this machine alone see its rows"
        yield Check("meta", "ok", text, facts=facts)
        return
    took = f"{vitals.seconds * 1e3:.1f} ms a question"
    text = f"{found.shown}: PostgreSQL {vitals.version}, {state}, {took}"
    facts |= {"version": vitals.version, "seconds": vitals.seconds}
    if vitals.standby:
        fix = "Point `meta` to the primary."
        yield Check("meta", "fail", f"{text}: it is a standby and cannot be written", fix, facts)
    elif vitals.seconds > _SLOW:
        fix = "Run scripts near the database: each commit of a controller waits for it."
        yield Check("meta", "warn", text, fix, facts)
    else:
        yield Check("meta", "ok", text, facts=facts)
    yield _connections(vitals.used, vitals.most)
    apart.append(-vitals.offset)
    yield judging.clock_of_database(vitals.offset, vitals.uncertainty)


def _connections(used: int, most: int) -> Check:
    text, facts = f"{used} of {most} connections in use", {"used": used, "most": most}
    if most - used < _FEW:
        fix = "Raise max_connections: each run takes two or so."
        return Check("connections", "warn", text, fix, facts)
    return Check("connections", "ok", text, facts=facts)


# -- nodes ------------------------------------------------------------------------------------


def _nodes(settings: Settings, patience: float, apart: list[float], tell: Tell) -> Iterator[Check]:
    named = [os.environ[name] for name in _INTERFACES if os.environ.get(name)]
    url = settings.blobs
    if settings.engine == "processes":
        return
    if not is_elsewhere(settings):
        address = "127.0.0.1"
        facts = here.facts(address, None, named)
        cores, cards = facts["cores"].get("usable", 1), facts["gpus"].get("names", [])
        for each in judging.machine(facts, cores, len(cards)):
            yield judging.at(each, f"{address} (this machine)")
        return
    assert url is not None  # `engines.check` refuses it
    with marking.marked(url) as marker, Asking(settings.engine) as asking:
        spec = {"patience": patience, "blobs": {"url": url, "marker": marker}, "named": named}
        report = asking.ask(tell, patience, examine=spec)
    known = {"versions": here.versions(), "apart": apart[0] if apart else None}
    yield from judging.cluster(report, known)
