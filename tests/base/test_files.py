"""Errors of the operating system in the family's words."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from penstock.base.errors import DiskFull, PenstockError, ReadOnly, Unavailable
from penstock.base.files import os_errors, sync_folder


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EROFS, ReadOnly),
        (errno.EACCES, ReadOnly),
        (errno.EPERM, ReadOnly),
        (errno.EIO, Unavailable),
        (errno.ENOTDIR, Unavailable),
    ],
)
def test_an_error_number_becomes_its_kind(code: int, kind: type[PenstockError]) -> None:
    with pytest.raises(PenstockError) as caught, os_errors("writing a blob", "/some/place"):
        raise OSError(code, os.strerror(code))
    assert type(caught.value) is kind
    assert "writing a blob in /some/place" in caught.value.what
    assert caught.value.fix
    assert caught.value.facts["errno"] == code


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), os_errors("x", "y"):
        raise KeyError("z")


def test_the_names_of_a_folder_are_flushed(tmp_path: Path) -> None:
    sync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "nowhere")
