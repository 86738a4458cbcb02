"""A user's project in a temporary folder, imported in this process and forgotten again."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.jobs.source import CodeIdentity, identity


class Project:
    """Files of a project; every look at it imports it anew."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, **modules: str) -> None:
        """`train="..."` writes train.py; `pkg__part` pkg/part.py; `pkg____init__` its init."""
        for name, text in modules.items():
            folder, init, _ = name.partition("____init__")
            path = self.root / (folder.replace("__", "/") + ("/__init__.py" if init else ".py"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def get(self, module: str, name: str) -> Any:
        self.forget()
        importlib.invalidate_caches()
        return getattr(importlib.import_module(module), name)

    def identity(self, module: str = "train", name: str = "fit") -> CodeIdentity:
        return identity(self.get(module, name))

    def forget(self) -> None:
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(self.root)):
                del sys.modules[name]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    made = Project(tmp_path)
    yield made
    made.forget()
