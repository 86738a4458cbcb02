"""Each test may ask for an example of every format, or of those that are read in pieces."""

from __future__ import annotations

from pathlib import Path

import pytest

from .examples import EXAMPLES, PIECED, Example


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Example:
    return EXAMPLES[request.param](tmp_path)


@pytest.fixture(params=PIECED)
def pieced(request: pytest.FixtureRequest, tmp_path: Path) -> Example:
    return EXAMPLES[request.param](tmp_path)
