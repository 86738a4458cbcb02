"""Blob stores to test."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.blobs import Blobs, open_blobs


@pytest.fixture(params=["memory", "local", pytest.param("s3", marks=pytest.mark.s3)])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """Every engine in turn; a new engine joins the contract by one line here."""
    if request.param == "s3":
        return open_blobs(request.getfixturevalue("s3"))
    return open_blobs({"memory": "memory://", "local": f"file://{tmp_path}/blobs"}[request.param])


@pytest.fixture
def local(tmp_path: Path) -> Blobs:
    return open_blobs(f"file://{tmp_path}/blobs")
