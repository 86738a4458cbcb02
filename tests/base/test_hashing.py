"""Digests do not depend on how the bytes come."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.base import hashing
from penstock.base.hashing import (
    Hasher,
    canonical_json,
    digest_bytes,
    digest_chunks,
    digest_file,
    digest_json,
    is_digest,
    short,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abä"), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_a_stream_has_the_digest_of_its_whole(data, cuts):
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(places)]
    hasher = Hasher()
    for piece in pieces:
        hasher.update(memoryview(piece))
    assert hasher.digest == digest_chunks(pieces) == digest_bytes(data)
    assert hasher.size == len(data)
    assert is_digest(hasher.digest)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_a_file_has_the_digest_of_its_bytes(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    assert digest_file(tmp_path / "x") == digest_bytes(data)


def test_a_file_larger_than_one_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "CHUNK", 1000)
    (tmp_path / "x").write_bytes(b"ab" * 5000)
    assert digest_file(tmp_path / "x") == digest_bytes(b"ab" * 5000)


def test_a_view_of_wider_items_counts_bytes():
    hasher = Hasher()
    hasher.update(memoryview(b"\0" * 16).cast("q"))
    assert hasher.size == 16


@given(value=JSON)
def test_json_is_canonical_and_reads_back(value):
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@given(value=st.dictionaries(st.text("abcd"), st.integers(), max_size=5))
def test_the_order_of_keys_does_not_matter(value):
    assert digest_json(dict(reversed(list(value.items())))) == digest_json(value)


def test_what_json_cannot_say_is_refused():
    with pytest.raises(ValueError):
        canonical_json(float("nan"))


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:" + "A" * 64, "sha256:" + "0" * 63, "sha256:" + "0" * 64 + "\n",
             "md5:" + "0" * 64, "../" + "0" * 64]
)  # fmt: skip
def test_what_is_not_a_digest_is_not_taken_for_one(text):
    assert not is_digest(text)


def test_short_is_for_people():
    assert short("sha256:" + "ab" * 32, 4) == "abab"
