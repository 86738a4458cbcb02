"""The pages fail here when they lie."""

import re
import tomllib
from pathlib import Path

import pytest
import typer.main

from penstock.base.settings import PREFIX, Settings
from penstock.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def commands(group, path="penstock"):
    """(path, command) of every command that can be called."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_documented_as_it_is(name):
    field = Settings.model_fields[name]
    row = next((x for x in page("settings.md").splitlines() if x.startswith(f"| `{name}`")), "")
    default = "none" if field.default is None else f"`{field.default}`"
    assert f"`{PREFIX}{name.upper()}`" in row
    assert f"| {default} |" in row
    assert field.description in row


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_every_command_is_documented_with_its_options(path):
    row = next((x for x in page("cli.md").splitlines() if x.startswith(f"| `{path}")), "")
    assert row, f"docs/cli.md has no row for {path}"
    shared = {"--json", "--home", "--help"}
    options = {opt for p in COMMANDS[path].params for opt in p.opts if opt.startswith("--")}
    missing = [option for option in options - shared if option not in row]
    assert not missing, f"docs/cli.md does not tell {missing} of {path}"


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_every_command_takes_json_and_shows_an_example(path):
    command = COMMANDS[path]
    assert command.help
    assert "--json" in {option for parameter in command.params for option in parameter.opts}
    assert path in command.epilog


def test_every_documented_command_exists():
    told = re.findall(r"^\| `(penstock [a-z ]+?)(?: \[?[A-Z].*?)?`", page("cli.md"), re.MULTILINE)
    assert sorted(told) == sorted(COMMANDS)


def dependencies() -> set[str]:
    """Names of all packages that pyproject.toml asks for, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return {re.split(r"[\[<>=]", line)[0] for group in groups for line in group}


def test_every_dependency_has_a_reason():
    told = re.findall(r"^\| `([\w.-]+)` \|", page("dependencies.md"), re.MULTILINE)
    assert sorted(told) == sorted(dependencies())


def test_every_dependency_is_pinned():
    constraints = (ROOT / "constraints.txt").read_text()
    pins = re.findall(r"^([\w.-]+)==", constraints, re.MULTILINE)
    assert dependencies() - {"penstock"} <= set(pins)
    assert re.search(r"^torch==[\d.]+$", constraints, re.MULTILINE)  # no +cpu: one line for all


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(path):
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", path.read_text())
    broken = [link for link in links if not (path.parent / link).exists()]
    assert not broken
