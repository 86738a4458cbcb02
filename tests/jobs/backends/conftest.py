"""An agent as a machine of a cluster hosts it, with a folder of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.jobs.backends import hosting
from penstock.jobs.backends.hosting import Hosted


@pytest.fixture
def hosted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosted]:
    monkeypatch.setenv(hosting.HOME, str(tmp_path / "node"))
    spec = {
        "run_id": "a-run",
        "preload": [],
        "image_env": {},
        "sidecars": {},
        "memory_bytes": None,
        "generation": 1,
    }
    found = hosting.host(hosting.new_name(), spec, "127.0.0.1")
    yield found
    found.close()
    assert not found.folder.exists()
