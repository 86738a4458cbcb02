"""Every error of the family survives pickling and JSON, and says what and how."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base.errors import BadInput, NotFound, PenstockError, family, from_dict

FAMILY = sorted(family().items())
FACTS = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=6),
    st.one_of(st.integers(), st.text(), st.booleans(), st.lists(st.integers(), max_size=3)),
    max_size=4,
)


@pytest.mark.parametrize("kind", [kind for _, kind in FAMILY], ids=[code for code, _ in FAMILY])
def test_an_error_survives_pickling(kind):
    error = kind("what happened", "mend it", step=3, path="/x")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.what, again.fix, again.facts) == ("what happened", "mend it", error.facts)
    assert str(again) == str(error) == "what happened\n  fix: mend it"


@given(
    kind=st.sampled_from([kind for _, kind in FAMILY]), what=st.text(), fix=st.text(), facts=FACTS
)
def test_as_dict_goes_through_json_and_back(kind, what, fix, facts):
    error = kind(what, fix, **facts)
    again = from_dict(json.loads(json.dumps(error.as_dict())))
    assert type(again) is kind
    assert again.as_dict() == error.as_dict()


def test_codes_are_unique_and_fit_a_command_line():
    kinds = [PenstockError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    assert len({kind.code for kind in kinds}) == len(set(kinds))
    assert all(code.replace("-", "").isalpha() and code.islower() for code, _ in FAMILY)


@pytest.mark.parametrize("kind", [kind for _, kind in FAMILY], ids=[code for code, _ in FAMILY])
def test_exit_codes_are_never_success_nor_a_signal(kind):
    assert 0 < kind.exit_code < 64
    assert issubclass(kind, PenstockError)


def test_bad_input_exits_as_usage_errors_do():
    assert BadInput.exit_code == 2
    assert {kind.exit_code for kind in BadInput.__subclasses__()} == {2}


def test_an_unknown_code_becomes_the_root_and_keeps_the_code():
    error = from_dict({"code": "from-the-future", "what": "x", "fix": "y", "facts": {"a": 1}})
    assert type(error) is PenstockError
    assert error.facts == {"a": 1, "code": "from-the-future"}


def test_an_error_without_a_remedy_is_one_line():
    assert str(NotFound("no run")) == "no run"
