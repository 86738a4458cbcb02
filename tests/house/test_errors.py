"""The error family travels, and every code is documented."""

import importlib
import pickle
import pkgutil
import re
from pathlib import Path

import pytest

import penstock
from penstock.base.errors import PenstockError, family, from_dict

ROOT = Path(__file__).parents[2]


def load_everything() -> None:
    """Import every module, so that every subclass of the family is known."""
    for each in pkgutil.walk_packages(penstock.__path__, "penstock."):
        if not each.name.endswith("__main__"):
            importlib.import_module(each.name)


load_everything()
KINDS = sorted(family().values(), key=lambda kind: kind.code)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_every_error_survives_pickle_and_json(kind):
    error = kind("it broke", "mend it", path="/x", rank=1)
    for copy in (pickle.loads(pickle.dumps(error)), from_dict(error.as_dict())):
        assert type(copy) is kind
        assert copy.as_dict() == error.as_dict()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_every_code_is_documented_with_its_exit_code(kind):
    text = (ROOT / "docs" / "errors.md").read_text()
    assert re.search(rf"^\| `{kind.code}` \| {kind.exit_code} \| `{kind.__name__}` ", text, re.M)


def test_codes_are_unique():
    def below(kind):
        yield kind
        for child in kind.__subclasses__():
            yield from below(child)

    codes = [kind.code for kind in set(below(PenstockError))]
    assert len(codes) == len(set(codes))
