"""Every module of Penstock, imported once for all tests of the house."""

import importlib
import pkgutil
from types import ModuleType

import pytest

import penstock
from penstock.base.errors import MissingExtra


@pytest.fixture(scope="session")
def modules() -> list[ModuleType]:
    """All of them but programs (`__main__`) and migrations, which only Alembic can run."""
    names = [
        each.name
        for each in pkgutil.walk_packages(penstock.__path__, "penstock.")
        if not each.name.endswith("__main__") and ".migrations." not in each.name
    ]
    return [found for name in names if (found := loaded(name)) is not None]


def loaded(name: str) -> ModuleType | None:
    """None for a subclass of what is not installed: a trainer's callback, Spark's data source."""
    try:
        return importlib.import_module(name)
    except MissingExtra:
        assert name.startswith(("penstock.training.callbacks.", "penstock.data.spark.source"))
        return None
