"""Tables of a far store are kept in a process, whoever reads them at the same time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from penstock.blobs.memory import MemoryBlobs
from penstock.data.preparation import tables


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_that_read_and_forget_tables_do_not_meet(
    switching: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_MOST_FETCHED", 20_000)  # a few of them
    monkeypatch.setattr(tables, "_fetched", type(tables._fetched)())
    blobs = MemoryBlobs("tables")
    stored = {tables.put_table(blobs, pa.table({"id": range(n, n + 500)})): n for n in range(40)}
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda digest: tables.read_table(blobs, digest), list(stored) * 50))
    for digest, table in zip(list(stored) * 50, read, strict=True):
        assert table["id"][0].as_py() == stored[digest] and table.num_rows == 500
    assert 0 < len(tables._fetched) < 10
