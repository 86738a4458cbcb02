"""The folder of checkpoints before a far store, for `penstock gc`: what of it nobody needs."""

from __future__ import annotations

from penstock.base.errors import NotFound
from penstock.checkpoints import Staged
from penstock.jobs.stores import Stores
from penstock.meta import Reader


def sweep(stores: Stores, *, dry_run: bool, grace_seconds: float) -> tuple[int, int]:
    """Remove notes of runs that finished or are forgotten, and copies that no row refers to.

    Returns how many copies, and their bytes. The far store has what a row refers to, or never will
    have it; so a copy goes in one step. Copies younger than `grace_seconds` stay: another
    process may be about to note one.
    """
    staged = Staged(stores.layout.staged)
    with stores.meta.read() as db:
        over = [run_id for run_id in staged.runs() if _is_over(db, run_id)]
        copies = staged.copies(but_of=over)
        wanted = db.referenced([copy.digest for copy in copies])
        before = db.now() - grace_seconds
    gone = [each for each in copies if each.digest not in wanted and each.modified <= before]
    if not dry_run:
        for run_id in over:
            staged.forget(run_id)
        for copy in gone:
            staged.remove(copy.digest)
    return len(gone), sum(copy.size for copy in gone)


def _is_over(db: Reader, run_id: str) -> bool:
    try:
        return db.get_run(run_id).state == "finished"
    except NotFound:
        return True
