"""Every module of Penstock, imported once for all tests of the house."""

import importlib
import pkgutil
from types import ModuleType

import pytest

import penstock


@pytest.fixture(scope="session")
def modules() -> list[ModuleType]:
    """All of them but those that are programs (`__main__`)."""
    return [
        importlib.import_module(each.name)
        for each in pkgutil.walk_packages(penstock.__path__, "penstock.")
        if not each.name.endswith("__main__")
    ]
