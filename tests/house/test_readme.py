"""README and guides say what is so: the example, the tests they name, rooms and commands."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import typer.main

from penstock.cli.main import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
GUIDES = ["README.md", "docs/architecture.md", "docs/faults.md", "docs/training.md"]


def page(name):
    return (ROOT / name).read_text()


def blocks(text, language=""):
    """Contents of the fenced code blocks of a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for its_language, block in found if its_language == language]


def functions_in(path):
    """Names of the test functions in a file, those of its classes included."""
    tree = ast.parse((ROOT / "tests" / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_the_example_is_shown_as_it_is():
    example = page("examples/digits/train.py")
    assert example in blocks(README, "python")
    assert len(example.splitlines()) < 120


def test_the_output_of_the_demo_is_short_and_ends_well():
    shown = next(block for block in blocks(README) if block.startswith("data "))
    assert len(shown.splitlines()) <= 25
    for word in ("IDENTICAL", "PASS -> production", "BLOCKED", "failed 0", "equal to offline"):
        assert word in shown


def test_every_page_and_every_extra_for_users_is_named():
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert {page for page in pages if f"]({page})" not in README} == set()
    project = tomllib.loads(page("pyproject.toml"))["project"]
    told = README[README.index("The extras:") :].partition("\n")[0]
    extras = set(project["optional-dependencies"]) - {"lint", "test", "interop"}
    assert {extra for extra in extras if f"`{extra}`" not in told} == set()


def test_every_test_that_is_named_exists():
    named = re.findall(r"`([a-z/_]+/test_\w+\.py)::(\w+)`", page("docs/faults.md"))
    assert len(named) > 30
    missing = [f"{path}::{name}" for path, name in named if name not in functions_in(path)]
    assert not missing


def test_every_fault_names_a_test():
    rows = [line for line in page("docs/faults.md").splitlines() if line.startswith("| ")]
    faults = [row for row in rows if not row.startswith(("| fault", "| named here"))]
    assert len(faults) > 30
    assert not [row for row in faults if "::test_" not in row]


def test_the_rooms_are_those_that_are_there():
    package = ROOT / "src" / "penstock"
    there = {path.parent.name for path in package.glob("*/__init__.py")}
    told = re.findall(r"^\| `(\w+)` \|", page("docs/architecture.md"), re.MULTILINE)
    assert sorted(told) == sorted(there)


@pytest.mark.parametrize("name", GUIDES)
def test_every_command_that_is_named_exists(name):
    group = typer.main.get_command(app)
    for noun, verb in re.findall(r"penstock (\w+)(?: (\w+))?", "\n".join(code_of(page(name)))):
        command = group.commands.get(noun)
        assert command is not None, f"penstock {noun}"
        if hasattr(command, "commands"):
            assert verb in command.commands, f"penstock {noun} {verb}"


def code_of(text):
    """Code blocks that are no Python, and words in backticks that begin with the command."""
    return [*blocks(text), *re.findall(r"`(penstock [^`]+)`", text)]


@pytest.mark.parametrize("name", GUIDES)
def test_every_code_path_that_is_named_exists(name):
    named = re.findall(r"`((?:src|tests|docs|examples|proto)/[\w./-]+)`", page(name))
    assert not [path for path in named if not (ROOT / path).exists()]
