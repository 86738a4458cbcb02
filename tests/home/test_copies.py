"""`penstock gc` and the folder of checkpoints before a far store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.base.settings import Settings
from penstock.blobs import open_blobs
from penstock.checkpoints import Staged
from penstock.home.gc import collect_garbage
from penstock.jobs.stores import Stores, open_stores
from penstock.records import Run


@pytest.fixture
def stores(tmp_path: Path) -> Any:
    with open_stores(Settings(home=tmp_path / "home")) as opened:
        yield Stores(opened.settings, opened.layout, opened.meta, open_blobs("memory://"))


def noted(stores: Stores, run_id: str, data: bytes) -> str:
    """A part on the disk, with its note."""
    digest = Staged(stores.layout.staged).blobs.put(data)
    folder = stores.layout.staged / "notes" / run_id
    folder.mkdir(parents=True, exist_ok=True)
    body = {"gang": 1, "step": len(data), "rank": 0, "part": {"blob": digest, "world_size": 1}}
    (folder / f"1-{len(data)}-0.json").write_text(json.dumps(body))
    return digest


def test_copies_that_no_row_wants_go_and_what_a_living_run_noted_stays(stores: Stores) -> None:
    staged = Staged(stores.layout.staged)
    wanted, rubbish = staged.blobs.put(b"committed"), staged.blobs.put(b"dropped since")
    with stores.meta.write() as tx:
        tx.refer("run/1", [wanted])
        tx.add_run(Run("run-alive", "a", "train", "stopped", {}))
        tx.add_run(Run("run-over", "b", "train", "finished", {}))
    alive = noted(stores, "run-alive", b"on its way")
    over, gone = noted(stores, "run-over", b"too late"), noted(stores, "run-gone", b"of nobody")
    assert collect_garbage(stores).copies == 0, "they are young"
    looked = collect_garbage(stores, dry_run=True, grace_seconds=0)
    assert (looked.copies, looked.copy_bytes) == (3, 13 + 8 + 9)
    assert staged.runs() and staged.blobs.exists(rubbish)
    assert collect_garbage(stores, grace_seconds=0).copies == 3
    there = [staged.blobs.exists(each) for each in (wanted, alive, rubbish, over, gone)]
    assert there == [True, True, False, False, False]
    assert staged.runs() == ["run-alive"]
    assert collect_garbage(stores, grace_seconds=0).copies == 0
