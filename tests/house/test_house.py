"""The house itself: floors, sizes, and nothing of any one machine."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$")
LONGEST = 450  # lines of a file that a person still reads as one thing
# Folders where people or machines keep what is theirs; none may be named in the tree.
PLACES = re.compile(r"/(?:home|Users)/(?!me/)[a-z][\w-]*/|/root/")


def tracked(*suffixes: str) -> list[Path]:
    """Files under version control; all files where git is missing (an unpacked archive)."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = done.stdout.split("\0") if done.returncode == 0 else []
    paths = [ROOT / name for name in names if name] or [
        path for top in ("src", "tests", "docs", "examples") for path in (ROOT / top).rglob("*")
    ]
    return [path for path in paths if path.suffix in suffixes and path.is_file()]


def test_no_file_is_too_long():
    long = {
        str(path.relative_to(ROOT)): count
        for path in tracked(".py")
        if not GENERATED.search(path.name)
        and (count := len(path.read_text().splitlines())) > LONGEST
    }
    assert not long


def test_no_file_names_a_place_of_one_machine():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in tracked(".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".cfg", ".sh", "")
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if PLACES.search(line) and path != Path(__file__)
    ]
    assert not found


def test_every_module_says_what_it_is_for():
    silent = [
        str(path.relative_to(ROOT))
        for path in tracked(".py")
        if path.is_relative_to(ROOT / "src")
        and not GENERATED.search(path.name)
        and (text := path.read_text().lstrip())  # an empty __init__.py only makes a package
        and not text.startswith('"""')
    ]
    assert not silent


def test_rooms_never_import_the_facade():
    eager = [
        str(path.relative_to(ROOT))
        for path in tracked(".py")
        if path.is_relative_to(ROOT / "src")
        and re.search(r"^\s*(import penstock( as|$)|from penstock import \(?ps)", path.read_text())
    ]
    assert not eager


@pytest.mark.timeout(180)
def test_imports_keep_to_the_floors():
    tool = Path(sys.executable).with_name("lint-imports")
    if not tool.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run(
        [tool, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
