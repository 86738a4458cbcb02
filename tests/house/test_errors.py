"""The error family travels, and every code is documented."""

import pickle
import re
from pathlib import Path

import pytest

from penstock.base.errors import PenstockError, family, from_dict

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()


@pytest.fixture
def kinds(modules) -> list[type[PenstockError]]:
    """Every class of the family, once every module that may define one is loaded."""
    found = [kind for kind in family().values() if kind.__module__.startswith("penstock.")]
    assert len(found) > 10
    return found


def test_every_error_survives_pickle_and_json(kinds):
    for kind in kinds:
        error = kind("it broke", "mend it", path="/x", rank=1)
        for copy in (pickle.loads(pickle.dumps(error)), from_dict(error.as_dict())):
            assert type(copy) is kind
            assert copy.as_dict() == error.as_dict()


def test_every_code_is_documented_with_its_exit_code(kinds):
    missing = [
        kind.code
        for kind in kinds
        if f"| `{kind.code}` | {kind.exit_code} | `{kind.__name__}` |" not in PAGE
    ]
    assert not missing


def test_every_documented_code_exists(kinds):
    told = re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)
    assert sorted(told) == sorted(kind.code for kind in kinds)


def test_codes_are_unique(kinds):
    def below(kind):
        yield kind
        for child in kind.__subclasses__():
            yield from below(child)

    codes = [kind.code for kind in set(below(PenstockError))]
    assert len(codes) == len(set(codes))
