"""The two transactions of a training run's owner that add checkpoints and take them away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penstock.base.hashing import digest_bytes
from penstock.checkpoints import assemble, to_drop
from penstock.jobs.work import Control
from penstock.meta import Writer
from penstock.records import Checkpoint
from penstock.training import windows
from penstock.training.windows import Window


@dataclass(frozen=True, slots=True)
class Assembled:
    """manifest  its bytes, to be put as a blob
    refs      blobs that it names
    size      bytes of all of it
    extra     what rank 0 handed over with its part
    """

    step: int
    manifest: bytes
    refs: list[str]
    size: int
    extra: dict[str, Any]

    @property
    def digest(self) -> str:
        return digest_bytes(self.manifest)


def assembled(
    control: Control, step: int, parts: list[dict[str, Any]], code: str | None
) -> Assembled:
    """All ranks' parts of one step as one checkpoint.

    parts   what the checkpoint writer said of each, by rank
    code    digest of the run's source snapshot
    Raises BadInput where the ranks do not agree.
    """
    extra = parts[0]["extra"]
    manifest, refs = assemble(
        control.run_id,
        step,
        control.generation,
        len(parts),
        [part["part"] for part in parts],
        {"metrics": extra["metrics"], "code": code},
    )
    size = len(manifest) + sum(part["part"]["nbytes"] for part in parts)
    return Assembled(step, manifest, refs, size, extra)


def commit_checkpoint(control: Control, found: Assembled, origin: int | None) -> None:
    """Parts and manifest of one step are stored: its row; old ones may go.

    origin  the step at which a forked run begins
    Raises LeaseLost, Unavailable, DiskFull.
    """
    step, extra = found.step, found.extra

    def change(tx: Writer) -> None:
        row = Checkpoint(
            control.run_id,
            step,
            found.digest,
            control.generation,
            tx.now(),
            found.size,
            extra["metrics"],
        )
        tx.add_checkpoint(row, [found.digest, *found.refs])
        if extra["best"] is not None:
            tx.mark_best(control.run_id, step, extra["best"])
        keep = control.stores.settings
        rows = tx.checkpoints(control.run_id)
        for old in to_drop(rows, keep.keep_checkpoints, origin, keep.keep_checkpoints_every):
            tx.drop_checkpoint(control.run_id, old)
        body = {"step": step, "bytes": found.size, "best": extra["best"]}
        tx.event(f"run/{control.run_id}", "checkpoint.committed", body)

    control.commit(change)


def go_back(control: Control, facts: dict[str, Any], origin: int | None) -> Window:
    """Gradients were unhealthy for too long: the window that is left out from now on. Checkpoints
    beyond its beginning go, pinned ones too: they are of steps that the run does not have any more.

    facts  of GradientsUnhealthy: "first" and "until" of the steps
    """

    def change(tx: Writer) -> Window:
        run = tx.get_run(control.run_id)
        known = windows.read(run.result)
        steps = [row.step for row in tx.checkpoints(run.id)]
        window = windows.go_back(steps, known, facts["first"], facts["until"], origin or 0)
        dropped = [step for step in steps if step > window.after]
        for step in dropped:
            tx.drop_checkpoint(run.id, step)
        kept = [each.as_dict() for each in (*known, window)]
        tx.change_run(run.id, result={**run.result, "left_out": kept})
        body = {**window.as_dict(), "dropped": dropped}
        tx.event(f"run/{run.id}", "window.left-out", body)
        return window

    return control.commit(change)
