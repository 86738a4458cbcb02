"""A home whose blobs all executors reach, and what was written into it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.spark_cluster import SparkCluster

from penstock.base.settings import load_settings
from penstock.data.manifest import Manifest, read_manifest
from penstock.data.preparation import Prepared
from penstock.jobs.stores import Stores, open_stores


@pytest.fixture
def spark(spark_cluster: SparkCluster) -> Any:
    """The session."""
    return spark_cluster.session


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    blobs = f"file://{tmp_path}/blobs"
    settings = load_settings(folder=tmp_path, home=tmp_path / "home", blobs=blobs)
    with open_stores(settings) as opened:
        yield opened
        with opened.meta.read() as meta:
            assert meta.oldest_pin() is None


@pytest.fixture
def manifest(stores: Stores) -> Callable[[Prepared], Manifest]:
    return lambda made: read_manifest(stores.blobs, made.version.digest)


@pytest.fixture
def versions(stores: Stores) -> Callable[[], list[str]]:
    """References of all versions."""

    def run() -> list[str]:
        with stores.meta.read() as meta:
            return [each.reference for each in meta.versions("dataset")]

    return run


_BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "{module}":
            raise ModuleNotFoundError("No module named '{module}'", name="{module}")

sys.meta_path.insert(0, Block())
"""


@pytest.fixture
def without(spark: Any, tmp_path: Path) -> Callable[[str], AbstractContextManager[None]]:
    """`with without(module):` Spark's Python processes cannot import it."""

    @contextmanager
    def run(module: str) -> Iterator[None]:
        (tmp_path / "sitecustomize.py").write_text(_BLOCK.format(module=module))
        python = tmp_path / "python"
        python.write_text(
            f'#!/bin/sh\nPYTHONPATH="{tmp_path}:$PYTHONPATH" exec {sys.executable} "$@"\n'
        )
        python.chmod(0o755)
        before = spark.sparkContext.pythonExec
        spark.sparkContext.pythonExec = str(python)
        try:
            yield
        finally:
            spark.sparkContext.pythonExec = before

    return run
