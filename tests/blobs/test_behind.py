"""Puts that end beside the caller's work: nothing is said to be durable before it is."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from penstock.base.errors import DiskFull
from penstock.blobs import Begun, Behind, Blobs, open_blobs
from penstock.blobs import local as local_room


class Held:
    """A store whose puts do not finish before they may."""

    def __init__(self, inner: Blobs) -> None:
        self._inner = inner
        self.may = threading.Event()

    def begin(self, data: bytes | memoryview | Iterable[bytes], *, mend: bool = False) -> Begun:
        begun = self._inner.begin(data, mend=mend)

        def finish() -> None:
            assert self.may.wait(30)
            begun.finish()

        return Begun(begun.digest, begun.size, begun.held, finish, begun.drop)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_a_put_gives_its_digest_before_the_blob_is_durable_and_settle_waits(local: Blobs) -> None:
    held = Held(local)
    with Behind(held) as behind:  # type: ignore[arg-type]
        digests = [behind.put(bytes([number]) * 100) for number in range(3)]
        assert not any(local.exists(each) for each in digests)
        held.may.set()
        behind.settle()
        assert all(local.exists(each) for each in digests)


def test_the_folder_and_the_file_are_flushed_before_settle_returns(
    local: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(local_room.os, "fsync", lambda fd: flushed.append(fd) or fsync(fd))
    with Behind(local) as behind:
        for number in range(5):
            behind.put(b"%d" % number)
        behind.settle()
        assert len(flushed) >= 2 * 5


def test_what_was_not_settled_when_it_ends_may_be_lost_but_leaves_nothing_half_made(
    local: Blobs, tmp_path: Path
) -> None:
    held = Held(local)
    with Behind(held) as behind:  # type: ignore[arg-type]
        for number in range(20):
            behind.put(b"%d" % number)
        threading.Timer(0.05, held.may.set).start()
    assert list((tmp_path / "blobs" / "tmp").iterdir()) == []
    for stat in local.list():
        local.verify(stat.digest)


def test_only_so_many_puts_are_open_at_once(local: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0

    class Counting(Held):
        def begin(self, data: Any, *, mend: bool = False) -> Begun:
            nonlocal most
            most = max(most, len(behind._open))
            return super().begin(data, mend=mend)

    store = Counting(local)
    store.may.set()
    with Behind(store) as behind:  # type: ignore[arg-type]
        for number in range(200):
            behind.put(b"%d" % number)
        behind.settle()
    assert 1 <= most <= 64
    assert len(list(local.list())) == 200


@pytest.mark.root
def test_a_full_disk_is_said_by_the_put_or_by_settle_and_nothing_is_visible(
    small_disk: Path,
) -> None:
    blobs = open_blobs(f"file://{small_disk}/blobs")
    with pytest.raises(DiskFull), Behind(blobs) as behind:
        behind.put(os.urandom(3 << 20))
        behind.settle()
    assert list(blobs.list()) == []
    assert list((small_disk / "blobs" / "tmp").iterdir()) == [], "the room is given back"
