"""Every module of Penstock, imported once for all tests of the house."""

import importlib
import pkgutil
from types import ModuleType

import pytest

import penstock


@pytest.fixture(scope="session")
def modules() -> list[ModuleType]:
    """All of them but programs (`__main__`) and migrations, which only Alembic can run."""
    return [
        importlib.import_module(each.name)
        for each in pkgutil.walk_packages(penstock.__path__, "penstock.")
        if not each.name.endswith("__main__") and ".migrations." not in each.name
    ]
