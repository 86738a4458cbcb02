"""Checkpoints that leave the home as files, and files that become checkpoints of a run."""

from __future__ import annotations

import shutil
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.base import ids
from penstock.base.errors import BadInput, Conflict
from penstock.jobs.stores import Stores, pinned
from penstock.records import Checkpoint, Run
from penstock.records.references import check_name
from penstock.training.origins import Origin, checkpoint_of, row_of

if TYPE_CHECKING:
    from penstock.checkpoints.dcp import Reader
    from penstock.checkpoints.dcp_writing import Writer


def export(stores: Stores, reference: str, path: Path, form: str) -> tuple[Origin, int]:
    """Write RUN (its newest whole checkpoint), RUN@STEP or RUN@best as a file, or a folder of DCP,
    that appears when all of it is there; the checkpoint and the bytes written.

    form  torch: the states of all tracked objects, for torch.load(weights_only=True); safetensors:
          the models' weights; dcp: as torch, a folder of torch.distributed.checkpoint
    Raises NotFound, Damaged, BadInput (the format; something is there), CannotTravel.
    """
    from penstock.checkpoints import load
    from penstock.training import formats

    wanted = formats.check(form)
    if path.exists():
        raise BadInput(f"{path} is there already", "Name another, or remove it.", path=str(path))
    with pinned(stores.meta):
        found = checkpoint_of(stores, reference)
        shared = load(stores.blobs, found.manifest, 0, 1).shared
    states = shared.get("tracked", shared)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        formats.write(states, scratch, wanted)
        scratch.rename(path)
    finally:
        if scratch.is_dir():
            shutil.rmtree(scratch)
        scratch.unlink(missing_ok=True)
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return found, sum(each.stat().st_size for each in files)


def import_file(stores: Stores, name: str, path: Path, form: str | None, step: int) -> Checkpoint:
    """Make a file, or a folder of DCP, the one checkpoint of a new, finished run: `init_from`,
    `export`, `pin` and `verify` take it like any other.

    form  as in `export`; None: guessed
    step  the number that its checkpoint gets
    Raises BadInput, Conflict (the name is taken), CannotTravel.
    """
    from penstock.checkpoints import assemble, persist, plan
    from penstock.training import formats

    if not path.exists():
        raise BadInput(f"there is no {path}", "Name a file, or a folder of DCP.", path=str(path))
    arriving = Arrival(stores, name, step, str(path))
    states = formats.read(path, formats.guess(path) if form is None else formats.check(form))
    with pinned(stores.meta):
        shared = {"tracked": states, "constructed": {}, "best": {}, "skipped": 0}
        planned = plan(shared, None, 0, 1)
        buffer = memoryview(bytearray(planned.nbytes))
        planned.copy_into(buffer)
        part = persist(buffer, planned.index, stores.blobs)
        extra: dict[str, Any] = {"metrics": {}, "code": ""}
        manifest, refs = assemble(arriving.run_id, step, 0, 1, [part], extra)
        return arriving.commit(manifest, refs, len(manifest) + part["nbytes"])


class Arrival:
    """A run that nobody trained here: its row comes with its one checkpoint, in one transaction.

    Raises BadInput for a name that cannot be one, Conflict when it is taken.
    """

    def __init__(self, stores: Stores, name: str, step: int, origin: str) -> None:
        self.run_id = ids.new_id("run")
        self._stores, self._step, self._origin = stores, step, origin
        self._name = check_name(name, "run name")
        if step < 0:
            raise BadInput(f"step {step} is none", "Give 0 or more.", step=step)
        with stores.meta.read() as db:
            _check_free(db.newest_run(name, "train"), name)

    def commit(self, manifest: bytes, refs: list[str], nbytes: int) -> Checkpoint:
        """Raises Conflict when the name was taken meanwhile."""
        digest = self._stores.blobs.put(manifest)
        spec: dict[str, Any] = {
            "entry": "",
            "config": None,
            "world_size": 1,
            "workers": 1,
            "seed": 0,
            "every": 1,
            "threads": 1,
            "init_from": None,
            "parts": {},
            "cwd": str(Path.cwd()),
            "imported": self._origin,
        }
        with self._stores.meta.write() as tx:
            _check_free(tx.newest_run(self._name, "train"), self._name)
            now = tx.now()
            run = Run(
                self.run_id, self._name, "train", "finished", spec, step=self._step, created_at=now
            )
            tx.add_run(run)
            tx.change_run(run.id, ended_at=now)
            row = Checkpoint(run.id, self._step, digest, 0, now, nbytes)
            tx.add_checkpoint(row, [digest, *refs])
            body = {"name": self._name, "from": self._origin, "step": self._step, "bytes": nbytes}
            tx.event(f"run/{run.id}", "run.imported", body)
        return row


def dcp_reader(stores: Stores, reference: str) -> Reader:
    """For `dcp.load(state, storage_reader=…)`. Without a step all of it is read twice, for a whole
    one has to be found. Raises NotFound, Damaged, BadInput."""
    from penstock.checkpoints import read_manifest
    from penstock.checkpoints.dcp import Reader

    with stores.meta.read() as db:
        row = row_of(db, reference)[2]
    if row is None:
        return Reader(stores.blobs, checkpoint_of(stores, reference).manifest)
    return Reader(stores.blobs, read_manifest(stores.blobs, row.digest))


def dcp_writer(stores: Stores, name: str, step: int) -> Writer:
    """For `dcp.save(state, storage_writer=…)`; on every rank. Raises BadInput, Conflict."""
    from penstock.checkpoints.dcp_writing import Writer

    class Pinning(Writer):
        """What the ranks write is kept from the moment that the coordinator is set up."""

        held = ExitStack()

        def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
            if is_coordinator:
                self.held.enter_context(pinned(stores.meta))

        def finish(self, metadata: Any, results: Any) -> None:
            with self.held:
                super().finish(metadata, results)

    arriving = Arrival(stores, name, step, "torch.distributed.checkpoint")

    def commit(manifest: bytes, refs: list[str], nbytes: int) -> None:
        arriving.commit(manifest, refs, nbytes)

    return Pinning(stores.blobs, arriving.run_id, step, commit)


def _check_free(known: Run | None, name: str) -> None:
    if known is not None:
        raise Conflict(f'there is a run "{name}" already ({known.id})', "Take another name.")
