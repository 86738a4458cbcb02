"""References as text, and records as JSON: there and back."""

from __future__ import annotations

import doctest
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import records
from penstock.base.errors import BadInput, Damaged
from penstock.records import (
    Alias,
    Attempt,
    Checkpoint,
    Deployment,
    Evaluation,
    Event,
    Lease,
    Reference,
    Run,
    Unit,
    Version,
    from_json,
    to_data,
    to_json,
)
from penstock.records import references as references_module
from penstock.records.references import check_name

PART = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
NAME = st.lists(PART, min_size=1, max_size=3).map("/".join)
ALIAS = PART.filter(lambda text: not text.isdigit())
SPLIT = st.none() | st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)
REFERENCES = st.one_of(
    st.builds(Reference, NAME, st.integers(1, 10**6), st.none(), SPLIT),
    st.builds(Reference, NAME, st.none(), ALIAS, SPLIT),
    st.builds(Reference, NAME, st.none(), st.none(), SPLIT),
)


@given(reference=REFERENCES)
def test_a_reference_is_its_text(reference):
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(f"  {reference}\n") == reference


@given(reference=REFERENCES, version=st.integers(1, 10**6))
def test_a_pinned_reference_keeps_name_and_split(reference, version):
    pinned = reference.pinned(version)
    assert Reference.parse(str(pinned)) == pinned
    assert (pinned.name, pinned.split) == (reference.name, reference.split)
    assert (pinned.version, pinned.alias) == (version, None)


@given(text=st.text(max_size=30))
def test_any_text_is_a_reference_or_bad_input(text):
    try:
        parsed = Reference.parse(text)
    except BadInput as error:
        assert error.facts == {"text": text}
    else:
        assert Reference.parse(str(parsed)) == parsed
        assert check_name(parsed.name) == parsed.name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@3",
        "a@",
        "a:",
        "../a",
        "a/../b",
        "/a",
        "a//b",
        "a/",
        ".a",
        "a b",
        "a@1@2",
        "a\0b",
        "-a",
    ],
)
def test_what_could_lead_out_of_a_folder_is_no_reference(text):
    with pytest.raises(BadInput, match="is not a reference"):
        Reference.parse(text)


@pytest.mark.parametrize("name", ["", "a@1", "a:train", "../x", "a\n", "x" * 201])
def test_a_name_that_could_not_be_written_in_a_reference_is_refused(name):
    with pytest.raises(BadInput, match="cannot be a dataset name"):
        check_name(name, "dataset name")


TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.dictionaries(TEXT, st.none() | st.integers(-(2**53), 2**53) | TEXT, max_size=3)
KINDS = [Run, Attempt, Checkpoint, Version, Alias, Evaluation, Deployment, Event, Lease, Unit]


def fields_of(kind):
    """Strategies where the type alone allows too much."""
    given_fields = {
        "created_at": NUMBER,
        "body": JSON,
        "summary": JSON,
        "detail": JSON,
        "result": JSON,
        "spec": JSON,
        "payload": JSON,
        "reason": JSON,
        "error": st.none() | JSON,
        "metrics": st.dictionaries(TEXT, NUMBER, max_size=3),
        "data": st.dictionaries(TEXT, TEXT, max_size=3),
    }
    own = {
        field: given_fields[field] for field in kind.__dataclass_fields__ if field in given_fields
    }
    for name, field in kind.__dataclass_fields__.items():
        if name not in own and field.type in ("float", "float | None"):
            own[name] = NUMBER
        elif name not in own and field.type in ("str", "str | None"):
            own[name] = TEXT
    return own


@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_a_record_survives_json(data, kind):
    record = data.draw(st.builds(kind, **fields_of(kind)))
    text = to_json(record)
    assert from_json(kind, text) == record
    assert to_json(from_json(kind, text)) == text
    assert json.loads(text) == to_data(record)


def test_a_record_that_does_not_parse_is_damage_that_names_the_field():
    with pytest.raises(Damaged, match=r"a stored Lease .* at generation"):
        from_json(Lease, b'{"key": "k", "holder": "h", "generation": "x", "expires_at": 1}')
    with pytest.raises(Damaged):
        from_json(Lease, b"not json")
    with pytest.raises(Damaged):
        from_json(Lease, b"{}")


@pytest.mark.parametrize("kind", KINDS)
def test_records_are_frozen(kind):
    assert kind.__dataclass_params__.frozen
    assert not hasattr(kind, "__dict__") or "__slots__" in vars(kind)


def test_a_version_names_its_reference():
    version = Version("model", "team/net", 3, "sha256:0", "run/1", 0.0)
    assert Reference.parse(version.reference) == Reference("team/net", 3)


def test_the_room_exports_what_it_names_sorted():
    assert sorted(records.__all__) == records.__all__
    assert all(hasattr(records, name) for name in records.__all__)


def test_the_examples_in_the_docstrings_run():
    result = doctest.testmod(references_module)
    assert result.attempted > 0 and result.failed == 0
