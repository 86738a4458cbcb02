"""`init_from`: whose weights a new run begins with, resolved once and kept in its row.

Loads no torch: a script resolves; ranks read and put the weights (`warm`).
"""

from __future__ import annotations

from typing import Any

from penstock.base.errors import BadInput
from penstock.jobs.stores import Stores
from penstock.records import Reference, Run
from penstock.registry import read_package
from penstock.training.origins import checkpoint_of

Record = dict[str, Any]
"""As it stands in a run's spec. `asked`: the text. `kind`: "run" (with `run`, `name`, `step`,
`manifest`, `blobs`), "model" (with `reference`, `package`, `weights`), or None where it came too
late. The digests in it keep their blobs from garbage collection as long as the run is there."""


def asked(run: Run) -> str | None:
    """What a run's call gave as `init_from`."""
    record = run.spec.get("init_from")
    return None if record is None else record["asked"]


def resolve(stores: Stores, text: str) -> tuple[Record, list[str]]:
    """(record, what is to be said of it). All that it names is read and verified here.

    text  RUN, RUN@STEP, RUN@best; or a model: NAME[@VERSION-OR-ALIAS]. "run/…" and "model/…" say
          which where a name is both
    Raises NotFound (the nearest is offered), Damaged, BadInput (no reference; ambiguous).
    """
    kind, name_at = _kind(stores, text)
    if kind == "model":
        return _model(stores, text, name_at), []
    found = checkpoint_of(stores, name_at, also="model")
    record = {
        "asked": text,
        "kind": "run",
        "run": found.run.id,
        "name": found.run.name,
        "step": found.checkpoint.step,
        "manifest": found.checkpoint.digest,
        "blobs": found.manifest.blobs,
    }
    return record, found.notes


def carried(last: Run, record: Record | None, begun: bool) -> dict[str, Any]:
    """What a run that goes on keeps in its spec of how it began.

    begun  it has checkpoints of its own: weights named only now are recorded as asked, and come too
           late; those that it did begin with stay on record
    """
    kept = {key: last.spec[key] for key in ("forked_from",) if key in last.spec}
    before = last.spec.get("init_from")
    if begun and record != before:
        wanted = None if record is None else record["asked"]
        record = {**(before or {"kind": None}), "asked": wanted}
    return {**kept, "init_from": record}


def _kind(stores: Stores, text: str) -> tuple[str, str]:
    """("run" or "model", the reference without its prefix)."""
    for prefix in ("run", "model"):
        if text.startswith(f"{prefix}/"):
            return prefix, text.removeprefix(f"{prefix}/")
    wanted = Reference.parse(text)
    name = wanted.name
    with stores.meta.read() as db:
        is_model = name in db.names("model")
        is_run = db.newest_run(name, "train") is not None
    if is_run and is_model and wanted.alias in (None, "best"):  # else only a model has it
        raise BadInput(
            f'"{name}" is a run and a model',
            f'Write init_from="run/{text}" or init_from="model/{text}".',
            name=name,
        )
    return ("model" if is_model else "run"), text


def _model(stores: Stores, text: str, reference: str) -> Record:
    with stores.meta.read() as db:
        version = db.get_version("model", reference)
    weights = read_package(stores.blobs, version.digest).files["weights"].digest
    stores.blobs.verify(weights)
    return {
        "asked": text,
        "kind": "model",
        "reference": version.reference,
        "package": version.digest,
        "weights": weights,
    }
