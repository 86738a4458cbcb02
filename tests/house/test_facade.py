"""The facade is small, sorted, documented, and costs nothing to import."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import penstock

DOCS = Path(__file__).parents[2] / "docs"
CLI_PAGE = (DOCS / "cli.md").read_text()

HEAVY = ("torch", "ray", "grpc", "pyarrow", "sqlalchemy", "numpy", "pydantic", "rich", "fastapi")


def loaded_after(code: str) -> list[str]:
    """Which heavy libraries a fresh interpreter has after running `code`."""
    script = f"{code}\nimport sys\nprint('HEAVY', *[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert "HEAVY" in done.stdout, done.stderr
    return done.stdout.rsplit("HEAVY", 1)[1].split()


def test_names_are_sorted_and_unique():
    assert penstock.__all__ == sorted(set(penstock.__all__))
    assert len(penstock.__all__) <= 25


@pytest.mark.parametrize("name", penstock.__all__)
def test_every_name_can_be_imported_and_is_documented(name):
    found = getattr(penstock, name)
    assert name == "__version__" or found.__doc__, f"ps.{name} has no docstring"


@pytest.mark.parametrize("name", penstock.__all__)
def test_every_name_is_on_the_page_of_the_facade(name):
    row = re.compile(rf"^\| `.*\bps\.{re.escape(name)}\b.*` \|", re.MULTILINE)
    assert row.search(CLI_PAGE), f"docs/cli.md has no row for ps.{name}"


def test_the_lazy_table_says_the_same_as_all():
    assert sorted([*penstock._HOMES, "__version__"]) == penstock.__all__


def test_no_name_hides_a_package():
    import pkgutil

    rooms = {each.name for each in pkgutil.iter_modules(penstock.__path__)}
    assert not rooms & set(penstock.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="trian"):
        _ = penstock.trian


def test_importing_penstock_loads_no_heavy_library():
    assert loaded_after("import penstock") == []


def test_help_loads_only_what_parses_and_draws_it():
    code = "from penstock.cli.main import run\nrun(['--help'])\nrun(['runs', 'list', '--help'])"
    assert set(loaded_after(code)) <= {"rich", "pydantic"}  # typer needs both of them


def test_errors_and_settings_load_no_store():
    assert set(loaded_after("import penstock as ps; ps.errors.NotFound; ps.Settings")) == {
        "pydantic"
    }
