"""Checkpoints of runs as doors show them: listed, pinned, unpinned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.base.errors import BadInput
from penstock.home.views import CheckpointView, ExportView
from penstock.records import Checkpoint, to_data

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores
    from penstock.meta.port import Reader


def listed(stores: Stores, run: str, verify: bool) -> list[CheckpointView]:
    """Newest first; `verify` reads all their bytes. Raises NotFound."""
    with stores.meta.read() as meta:
        rows = meta.checkpoints(meta.get_run(run).id)
    return [_verified(stores, row) if verify else _view(row) for row in rows]


def pin(stores: Stores, reference: str, note: str) -> CheckpointView:
    """Keep RUN@STEP or RUN@best until it is unpinned. Raises NotFound, BadInput."""
    with stores.meta.write() as tx:
        row = _named(tx, reference)
        tx.pin_checkpoint(row.run_id, row.step, note)
    return replace(_view(row), pinned=note)


def unpin(stores: Stores, reference: str) -> CheckpointView:
    """Let it go with the run's next checkpoint, if nothing else holds it. Raises NotFound,
    BadInput (it is not pinned)."""
    with stores.meta.write() as tx:
        row = _named(tx, reference)
        if not tx.unpin_checkpoint(row.run_id, row.step):
            raise BadInput(
                f"{reference} is not pinned",
                "See which are: penstock runs checkpoints RUN",
                run=row.run_id,
                step=row.step,
            )
    return replace(_view(row), pinned=None)


def export(stores: Stores, reference: str, path: str, form: str) -> ExportView:
    """A checkpoint as a file of others. Raises NotFound, Damaged, BadInput, CannotTravel."""
    from penstock.training.exporting import export as write

    found, size = write(stores, reference, Path(path), form)
    return ExportView(found.run.id, found.checkpoint.step, path, form, size, found.notes)


def import_file(
    stores: Stores, name: str, path: str, form: str | None, step: int
) -> CheckpointView:
    """A file of others as the checkpoint of a new run. Raises BadInput, Conflict, CannotTravel."""
    from penstock.training.exporting import import_file as read

    return _view(read(stores, name, Path(path), form, step))


def _named(meta: Reader, reference: str) -> Checkpoint:
    from penstock.training.origins import row_of

    _, _, row = row_of(meta, reference)
    if row is None:
        raise BadInput(
            f'"{reference}" names a run and no step',
            "Write RUN@STEP or RUN@best; `penstock runs checkpoints RUN` lists the steps.",
        )
    return row


def _view(row: Checkpoint) -> CheckpointView:
    return CheckpointView(
        row.run_id, row.step, row.bytes, row.created_at, row.metrics, row.best, row.pinned
    )


def _verified(stores: Stores, row: Checkpoint) -> CheckpointView:
    from penstock import checkpoints

    damages: list[Any] = [to_data(each) for each in checkpoints.verify(row, stores.blobs)]
    return replace(_view(row), whole=not damages, damages=damages)
