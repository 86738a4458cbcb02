"""URLs, credentials, pace and errors of object stores: what needs no server."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base.errors import BadInput
from penstock.blobs import open_blobs
from penstock.blobs.remote import pace
from penstock.blobs.remote.address import Address, parse
from penstock.blobs.remote.credentials import aws_profile
from penstock.blobs.remote.etag import etag_of
from penstock.blobs.remote.failures import give_up, understand

# URLs

parts = st.text("abcABC019-._=+", min_size=1, max_size=8).filter(lambda part: set(part) != {"."})


@given(
    bucket=st.text("abc019.-", min_size=1, max_size=20),
    prefix=st.lists(parts, max_size=3).map("/".join),
    endpoint=st.none() | st.sampled_from(["http://127.0.0.1:9000", "https://s3.example.org"]),
    region=st.none() | st.sampled_from(["us-east-1", "eu-central-1"]),
    anonymous=st.booleans(),
    deadline=st.sampled_from([120.0, 5.0, 0.5]),
    connections=st.sampled_from([32, 1]),
)
def test_an_address_survives_its_url(
    bucket: str,
    prefix: str,
    endpoint: str | None,
    region: str | None,
    anonymous: bool,
    deadline: float,
    connections: int,
) -> None:
    address = Address(
        "s3", bucket, prefix, endpoint, region,
        anonymous=anonymous, deadline=deadline, connections=connections,
    )  # fmt: skip
    assert parse(address.url) == address


@pytest.mark.parametrize("url", ["s3://bucket/a/", "s3://bucket//a", "s3://bucket/a?"])
def test_one_store_has_one_url(url: str) -> None:
    assert open_blobs(url).url == "s3://bucket/a"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://", "bucket"),
        ("s3:///prefix", "bucket"),
        ("s3://Bucket", "bucket"),
        ("s3://b/../other", "dotted"),
        ("s3://b/a//b", "empty"),
        ("s3://b/a%2e", "letters"),
        ("s3://b/a#b", "letters"),
        ("s3://b/a b", "letters"),
        ("s3://b?regon=x", '"region"'),
        ("s3://b?account=x", "account"),
        ("s3://b?endpoint=localhost:9000", "http://HOST"),
        ("s3://b?deadline=soon", "no number"),
        ("s3://b?deadline=0", "below"),
        ("s3://b?connections=1.5", "no number"),
        ("s3://b?deadline=nan", "below"),
        ("s3://b?anonymous=yes", "neither"),
        ("s3://b?region", "options"),
    ],
)
def test_a_url_that_does_not_hold_says_why(url: str, told: str) -> None:
    with pytest.raises(BadInput) as caught:
        open_blobs(url)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIDX:hush@bucket/x",
        "s3://bucket?secret_access_key=hush",
        "s3://bucket?access_key_id=x&secret=hush",
        "s3://b?endpoint=http://me:hush@host",
        "az://c?sas_token=hush",
    ],
)
def test_secrets_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(BadInput) as caught:
        open_blobs(url)
    assert "hush" not in str(caught.value) + repr(caught.value.facts)


# credentials


@pytest.fixture
def profiles(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = A\naws_secret_access_key = B\n"
        "[work]\naws_access_key_id = C\naws_secret_access_key = D\naws_session_token = E\n"
    )
    (tmp_path / "config").write_text("[default]\nregion = r1\n[profile work]\nregion = r2\n")
    return {
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
    }


def test_the_profile_files_are_read(profiles: dict[str, str]) -> None:
    assert aws_profile(profiles) == {
        "access_key_id": "A", "secret_access_key": "B", "region": "r1",
    }  # fmt: skip
    assert aws_profile(profiles | {"AWS_PROFILE": "work"}) == {
        "access_key_id": "C", "secret_access_key": "D", "token": "E", "region": "r2",
    }  # fmt: skip


def test_the_environment_goes_before_the_profile(profiles: dict[str, str]) -> None:
    given = profiles | {"AWS_ACCESS_KEY_ID": "X", "AWS_REGION": "r9"}
    assert aws_profile(given) == {}


@pytest.mark.parametrize("text", ["no section", "[default", "\x00\xff", ""])
def test_a_profile_file_that_cannot_be_read_is_no_profile(tmp_path: Path, text: str) -> None:
    (tmp_path / "c").write_text(text, encoding="latin-1")
    path = str(tmp_path / "c")
    assert aws_profile({"AWS_SHARED_CREDENTIALS_FILE": path, "AWS_CONFIG_FILE": path}) == {}


# pace


@given(st.lists(st.floats(0, 5), min_size=1, max_size=300))
def test_retries_never_outrun_the_budget(gaps: list[float]) -> None:
    budget, now, sent = pace.RetryBudget(0.0), 0.0, []
    for gap in gaps:
        now += gap
        sent.append(now + budget.wait(now))
    for n, at in enumerate(sorted(sent), 1):
        assert n <= 40 + at + 1.001


def test_a_success_gives_tokens_back_and_forgives_debts() -> None:
    budget = pace.RetryBudget(0.0)
    assert [budget.wait(0.0) for _ in range(42)][-1] == 2.0
    budget.succeeded()
    assert [budget.wait(0.0) for _ in range(2)] == [0.0, 0.0]


@given(st.integers(1, 10_000), st.integers())
def test_a_pause_grows_to_its_limit_and_is_never_nothing(failures: int, seed: int) -> None:
    seconds = pace.pause(failures, random.Random(seed))
    assert 0 < seconds <= pace.LONGEST_PAUSE
    assert seconds <= pace.FIRST_PAUSE * 2 ** min(failures - 1, 100)


def test_slots_are_halved_once_a_burst_and_regained() -> None:
    slots = pace.Slots(32)
    for _ in range(10):
        slots.throttled(1.0)
    assert slots.limit == 16
    for second in range(2, 20):
        slots.throttled(float(second))
    assert slots.limit == 1
    for _ in range(1000):
        slots.succeeded()
    assert slots.limit == 32


@given(st.lists(st.floats(0.001, 1.0), min_size=33, max_size=400))
def test_hedges_are_a_twentieth_of_reads_at_most(times: list[float]) -> None:
    latencies, taken = pace.Latencies(), 0
    for seconds in times:
        taken += latencies.take()
        latencies.add(seconds)
    assert taken <= len(times) / 20
    assert latencies.slow is not None
    assert min(times) <= latencies.slow <= 1.5 * max(times)


def test_nothing_is_slow_before_enough_was_seen() -> None:
    latencies = pace.Latencies()
    for _ in range(31):
        latencies.add(1.0)
    assert latencies.slow is None


def test_where_all_reads_take_alike_none_is_slow() -> None:
    latencies = pace.Latencies()
    for n in range(200):
        latencies.add(1.0 + n % 10 / 100)
    assert latencies.slow is not None
    assert latencies.slow > 1.1


# errors


class GenericError(Exception):
    """Named as obstore's, by which it is known."""


@pytest.mark.parametrize(
    ("error", "kind", "again", "doubtful"),
    [
        (TimeoutError(), "slow", True, True),
        (GenericError("source: ConnectionRefused"), "refused", True, False),
        (GenericError('"dns error"'), "host", True, False),
        (GenericError("kind: Timeout"), "slow", True, True),
        (GenericError("source: IncompleteMessage"), "broken", True, True),
        (GenericError("status code: 500 x"), "failing", True, True),
        (GenericError("status code: 503 <Code>SlowDown</Code>"), "throttled", True, False),
        (GenericError("status code: 429 x"), "throttled", True, False),
        (GenericError("status: 409, <Code>OperationAborted</Code>"), "failing", True, True),
        (GenericError("status code: 409 <Code>BlobAlreadyExists</Code>"), "exists", False, False),
        (GenericError("status code: 412 x"), "exists", False, False),
        (GenericError("status code: 416 x"), "range", False, False),
        (GenericError("status code: 404 <Code>NoSuchBucket</Code>"), "bucket", False, False),
        (FileNotFoundError("status code: 404"), "missing", False, False),
        (GenericError("status code: 403 <Code>RequestTimeTooSkewed</Code>"), "clock", False, False),
        (GenericError("PUT http://169.254.169.254/latest/api/token"), "credentials", False, False),
        (GenericError("status code: 418"), "other", False, False),
        (ValueError("what is this"), "other", False, False),
    ],
)  # fmt: skip
def test_what_an_error_means(error: Exception, kind: str, again: bool, doubtful: bool) -> None:
    failure = understand(error)
    assert (failure.kind, failure.again, failure.doubtful) == (kind, again, doubtful)
    told = give_up(failure, parse("s3://bucket/x"), 3, 1.5)
    assert told.fix
    assert "bucket" in str(told)


def test_the_etag_of_parts_is_what_s3_says() -> None:
    data = memoryview(bytes(12))
    assert etag_of(data) == "8dd6bb7329a71449b0a1b292b5999164"
    assert etag_of(data, 5).endswith("-3")
