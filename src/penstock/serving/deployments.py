"""The rows of deployments: what is wanted, written by anybody; what is, written by the keeper."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from penstock.base.errors import PenstockError, RunStopped, Unavailable, from_dict
from penstock.base.process import Identity
from penstock.meta.port import Reader
from penstock.records import Deployment, Lease
from penstock.records.references import check_name

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores

_LOOK = 0.05  # seconds


def lease_key(name: str) -> str:
    return f"deployment/{name}"


def deploy(stores: Stores, name: str, model: str) -> Deployment:
    """Want `name` to serve what `model` means now; whoever keeps deployments brings it up.

    Idempotent: the same wish again changes nothing, unless it was given up: then it is tried
    again. A reference that resolves to another version than before is a rolling replacement.
    Raises NotFound (nearest offered), BadInput.
    """
    check_name(name, "deployment name")
    with stores.meta.write() as meta:
        version = meta.get_version("model", model)
        found = meta.find_deployment(name)
        if found is not None and _is_same(found, model, version.reference):
            return found
        asked = 1 + (found.detail.get("asked", 0) if found is not None else 0)
        if found is None:
            found = Deployment(name, model, "", "pending", "up", 0, 0.0, 0.0)
        wish = replace(
            found,
            model=model,
            resolved=version.reference,
            wanted="up",
            state=found.state if found.state in ("ready", "starting") else "pending",
            detail={**found.detail, "asked": asked, "error": None},
        )
        put = meta.put_deployment(wish, found.revision or None)
        body = {"model": model, "resolved": version.reference}
        meta.event(f"deployment/{name}", "deployment.wanted", body)
        return put


def _is_same(found: Deployment, model: str, resolved: str) -> bool:
    """Whether this is wished already, and nobody has given it up."""
    wish = (found.wanted, found.model, found.resolved)
    given_up = found.state == "failed" or found.detail.get("error") is not None
    return wish == ("up", model, resolved) and not given_up


def stop(stores: Stores, name: str) -> Deployment:
    """Want it down; its keeper drains it. Twice is no error. Raises NotFound."""
    with stores.meta.write() as meta:
        found = meta.get_deployment(name)
        kept = is_kept(meta, name)
        if found.wanted == "down" and (kept or found.state == "stopped"):
            return found
        wish = replace(found, wanted="down")
        if not kept:
            wish = replace(wish, state="stopped", address=None)
        put = meta.put_deployment(wish, found.revision)
        meta.event(f"deployment/{name}", "deployment.unwanted", {"kept": kept})
        return put


def is_kept(meta: Reader, name: str) -> bool:
    """Whether a keeper that is not known to be dead holds this deployment."""
    lease = meta.find_lease(lease_key(name))
    return lease is not None and _may_live(lease) and lease.expires_at > meta.now()


def _may_live(lease: Lease) -> bool:
    try:
        return Identity.parse(lease.holder).is_dead() is not True
    except ValueError:
        return True


def report(
    stores: Stores,
    lease: Lease,
    name: str,
    kind: str,
    body: Mapping[str, Any],
    detail: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Deployment:
    """The keeper's word: change the row and tell it, in one transaction. Raises LeaseLost.

    The wish (`model`, `resolved`, `wanted`) is never touched: it may have changed meanwhile.
    """
    with stores.meta.write(lease) as meta:
        found = meta.get_deployment(name)
        merged = {**found.detail, **(detail or {}), "generation": lease.generation}
        put = meta.put_deployment(replace(found, detail=merged, **changes), found.revision)
        meta.event(f"deployment/{name}", kind, body)
        return put


def wait_ready(stores: Stores, name: str, timeout: float = 60.0) -> Deployment:
    """The row once its own keeper says that the wanted version answers.

    Raises the error with which it failed; RunStopped when it is not wanted any more; Unavailable
    when nobody has brought it up after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        with stores.meta.read() as meta:
            row = meta.get_deployment(name)
            lease = meta.find_lease(lease_key(name))
        current = lease is not None and row.detail.get("generation") == lease.generation
        if current and row.state == "ready" and row.detail.get("serving") == row.resolved:
            return row
        if current and row.detail.get("error"):
            raise failure(row)
        if row.wanted == "down":
            raise RunStopped(
                f'deployment "{name}" is wanted down', "Deploy it again.", deployment=name
            )
        if time.monotonic() > deadline:
            raise Unavailable(
                f'deployment "{name}" is {row.state} after {timeout:g} s',
                "Is somebody keeping it? `penstock up` does; its log says more.",
                deployment=name,
                state=row.state,
            )
        time.sleep(_LOOK)


def failure(row: Deployment) -> PenstockError:
    """The error of a deployment that could not be brought up."""
    return from_dict(row.detail["error"])
