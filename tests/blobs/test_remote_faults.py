"""An object store that refuses, drops, delays, throttles and lies; on real sockets."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from penstock.base.errors import (
    AccessDenied,
    ClockSkew,
    Damaged,
    NoCredentials,
    NoSuchBucket,
    NotFound,
    PenstockError,
    StoreThrottled,
    StoreUnreachable,
    Unavailable,
)
from penstock.base.hashing import digest_bytes
from penstock.blobs import open_blobs

pytestmark = pytest.mark.s3

MIB = 1 << 20


def first(n: int, fault: object, *methods: str) -> Any:
    """A fault for the first n requests of these methods (default: all)."""
    left = [n]

    def choose(seen: Any) -> object:
        if (methods and seen.method not in methods) or left[0] <= 0:
            return None
        left[0] -= 1
        return fault

    return choose


def counters(blobs: Any) -> Any:
    return blobs.counters


@pytest.mark.parametrize(
    "fault", ["drop before", "drop after", "cut", (500, "InternalError"), (503, "SlowDown")]
)
def test_every_operation_gets_through_a_store_that_fails_once(
    through: Any, proxy: Any, fault: object
) -> None:
    def work() -> bytes:
        digest = through.put(b"content")
        through.verify(digest)
        assert [stat.digest for stat in through.list()] == [digest]
        through.condemn(digest)
        assert [stat.size for stat in through.condemned()] == [7]
        through.restore(digest)
        assert through.stat(digest).size == 7
        return through.get(digest)

    seen: set[str] = set()

    def once_per_kind(request: Any) -> object:
        kind = f"{request.method} {request.path.split('?')[0]}"
        if kind in seen:
            return None
        seen.add(kind)
        return fault

    proxy.fault = once_per_kind
    assert work() == b"content"
    assert counters(through).retries >= (3 if fault == "cut" else 6)


def test_a_write_whose_answer_is_lost_is_written_once(through: Any, proxy: Any) -> None:
    proxy.fault = first(1, "drop after", "PUT")
    digest = through.put(b"was it written?")
    assert proxy.methods() == ["PUT", "PUT", "HEAD"], "the ETag told; nothing was read back"
    assert [seen.status for seen in proxy.seen] == [0, 412, 200]
    assert counters(through).doubts == 1
    assert through.get(digest) == b"was it written?"


def test_a_doubt_about_other_bytes_is_resolved_by_writing_over_them(
    through: Any, proxy: Any, moto: str, bucket: str
) -> None:
    digest = digest_bytes(b"right")
    name = digest.removeprefix("sha256:")
    plant(moto, bucket, f"p/{name[:2]}/{name[2:]}", b"wrong")
    proxy.fault = first(1, "drop before", "PUT")
    assert through.put(b"right") == digest
    assert through.get(digest) == b"right"


def plant(moto: str, bucket: str, key: str, data: bytes) -> None:
    """Write an object past the engine."""
    from obstore.store import S3Store

    S3Store(bucket, endpoint=moto, client_options={"allow_http": True}).put(key, data)


def test_a_large_upload_whose_last_answer_is_lost_is_not_sent_again(
    through: Any, proxy: Any
) -> None:
    def fault(seen: Any) -> object:
        last = seen.method == "POST" and "uploadId" in seen.path
        return "drop after" if last and sum("uploadId" in s.path for s in proxy.seen) < 5 else None

    proxy.fault = fault
    data = os.urandom(33 * MIB)
    digest = through.put(data)
    parts = [seen for seen in proxy.seen if "partNumber" in seen.path]
    assert len(parts) == 3
    assert through.get(digest) == data


def test_an_upload_that_fails_is_aborted_and_nothing_is_visible(
    bucket: str, proxy: Any, moto: str
) -> None:
    blobs = open_blobs(f"s3://{bucket}/p?endpoint={proxy.url}&deadline=1&timeout=5")
    proxy.fault = lambda seen: (500, "InternalError") if "partNumber=2" in seen.path else None
    with pytest.raises(StoreUnreachable):
        blobs.put(os.urandom(33 * MIB))
    proxy.fault = lambda seen: None
    assert list(blobs.list()) == []
    aborts = [seen for seen in proxy.seen if seen.method == "DELETE" and "uploadId" in seen.path]
    begun = [seen for seen in proxy.seen if seen.method == "POST" and "uploads" in seen.path]
    assert len(aborts) == len(begun) >= 1


@pytest.mark.faults
def test_a_writer_killed_in_the_middle_of_an_upload_leaves_nothing_visible(
    through: Any, proxy: Any
) -> None:
    proxy.fault = lambda seen: "hang" if "partNumber=2" in seen.path else None
    child = os.fork()
    if child == 0:
        through.put(os.urandom(33 * MIB))
        os._exit(0)
    while not any("partNumber=2" in seen.path for seen in list(proxy.seen)):
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        proxy.release.wait(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    proxy.release.set()
    assert list(through.list()) == []
    data = os.urandom(17 * MIB)
    assert through.get(through.put(data)) == data


def test_what_the_store_does_not_copy_is_copied_through_this_machine(
    through: Any, proxy: Any
) -> None:
    digest = through.put(os.urandom(9 * MIB))

    def too_large(seen: Any) -> object:
        condemning = seen.method == "PUT" and "condemned/" in seen.path
        first_time = not any(other.status == 400 for other in proxy.seen)
        return (400, "InvalidRequest") if condemning and first_time else None

    proxy.fault = too_large
    through.condemn(digest)
    assert not through.exists(digest)
    through.verify(digest)


def test_a_source_that_fails_sends_nothing(through: Any, proxy: Any) -> None:
    def torn() -> Any:
        yield os.urandom(40 * MIB)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        through.put(torn())
    assert proxy.seen == []


def test_a_bit_that_flips_on_its_way_is_read_again(through: Any, proxy: Any) -> None:
    digest = through.put(b"content")
    proxy.fault = first(1, "flip", "GET")
    assert through.get(digest) == b"content"
    assert counters(through).rereads == 1


def test_a_damaged_object_is_named_and_mended_by_a_put_that_mends(
    through: Any, moto: str, bucket: str
) -> None:
    digest = through.put(b"content")
    name = digest.removeprefix("sha256:")
    plant(moto, bucket, f"p/{name[:2]}/{name[2:]}", b"c0ntent")
    for question in (through.get, through.verify):
        with pytest.raises(Damaged) as caught:
            question(digest)
        assert caught.value.facts["digest"] == digest
    through.put(b"content")
    with pytest.raises(Damaged):
        through.verify(digest)
    through.put(b"content", mend=True)
    through.verify(digest)


def test_an_object_of_another_size_is_healed_by_the_next_put(
    through: Any, moto: str, bucket: str
) -> None:
    digest = through.put(b"content")
    name = digest.removeprefix("sha256:")
    plant(moto, bucket, f"p/{name[:2]}/{name[2:]}", b"con")
    through.put(b"content")
    assert through.get(digest) == b"content"


def test_a_store_that_is_gone_for_a_while_costs_only_time(through: Any, proxy: Any) -> None:
    digest = through.put(b"before")
    proxy.stop()
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(through.get(digest)))
    thread.start()
    while counters(through).retries < 4:
        thread.join(0.02)
        assert thread.is_alive()
    proxy.start()
    thread.join(30)
    assert found == [b"before"]


def test_many_callers_of_a_dead_store_share_one_budget_of_retries(proxy: Any, bucket: str) -> None:
    blobs: Any = open_blobs(f"s3://{bucket}/p?endpoint={proxy.url}&deadline=3&timeout=5")
    digest = blobs.put(b"x")
    proxy.seen.clear()
    proxy.fault = lambda seen: (500, "InternalError")
    errors: list[PenstockError] = []

    def ask() -> None:
        try:
            blobs.get(digest)
        except PenstockError as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(40)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    took = time.monotonic() - began
    assert [type(error) for error in errors] == [StoreUnreachable] * 40
    # 40 first tries, 40 saved tokens, about one more a second; alone each would try 9 times.
    assert 40 < len(proxy.seen) <= 40 + 40 + took + 3


def test_throttling_is_honoured_and_survived(through: Any, proxy: Any) -> None:
    digest = through.put(os.urandom(9 * MIB))
    proxy.fault = first(6, (503, "SlowDown"), "GET")
    through.verify(digest)
    assert counters(through).throttled == 6


def test_throttling_that_goes_on_is_one_clear_error(proxy: Any, bucket: str) -> None:
    blobs = open_blobs(f"s3://{bucket}/p?endpoint={proxy.url}&deadline=1")
    proxy.fault = lambda seen: (503, "SlowDown")
    with pytest.raises(StoreThrottled) as caught:
        blobs.put(b"x")
    assert caught.value.facts["cause"] == "throttled"


def test_a_read_that_hangs_is_asked_twice(through: Any, proxy: Any) -> None:
    digest = through.put(b"often read")
    steady, hedges = 0, 0
    while steady < 40:  # reads since the last hedge: enough to have earned one
        through.get(digest)
        steady = steady + 1 if counters(through).hedges == hedges else 0
        hedges = counters(through).hedges
    proxy.seen.clear()
    proxy.fault = first(1, "hang", "GET")
    assert through.get(digest) == b"often read"
    assert counters(through).hedges == hedges + 1
    assert counters(through).hedges_won >= 1
    assert counters(through).retries == 0, "it did not wait for the time-out"
    assert len(proxy.seen) == 2


def test_hedges_stay_a_small_share_of_reads(through: Any, proxy: Any) -> None:
    digest = through.put(b"often read")
    slow = threading.Event()
    count = [0]

    def every_third_is_slow(seen: Any) -> object:
        count[0] += 1
        if count[0] % 3 == 0:
            slow.wait(0.03)
        return None

    proxy.fault = every_third_is_slow
    for _ in range(150):
        through.get(digest)
    assert 0 <= counters(through).hedges <= 150 * 0.05 + 1
    assert counters(through).requests["get"] == 150 + counters(through).hedges


def test_a_time_out_is_tried_again(proxy: Any, bucket: str) -> None:
    blobs: Any = open_blobs(f"s3://{bucket}/p?endpoint={proxy.url}&timeout=0.3&deadline=10")
    digest = blobs.put(b"x")
    proxy.fault = first(1, "hang", "GET")
    assert blobs.get(digest) == b"x"
    assert blobs.counters.retries == 1


# One clear error each


def test_a_refused_connection_is_said(bucket: str, proxy: Any) -> None:
    proxy.stop()
    blobs = open_blobs(f"s3://{bucket}?endpoint={proxy.url}&deadline=0.3")
    with pytest.raises(StoreUnreachable, match="connection refused") as caught:
        blobs.put(b"x")
    assert caught.value.facts["cause"] == "refused"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_an_unknown_host_is_said(moto: str) -> None:
    blobs = open_blobs("s3://bucket?endpoint=http://store.invalid:9000&deadline=0.3")
    with pytest.raises(StoreUnreachable, match="host name") as caught:
        blobs.get(digest_bytes(b"x"))
    assert caught.value.facts["cause"] == "host"


def test_no_answer_is_said(bucket: str, proxy: Any) -> None:
    proxy.fault = lambda seen: "hang"
    blobs = open_blobs(f"s3://{bucket}?endpoint={proxy.url}&timeout=0.2&deadline=0.5")
    with pytest.raises(StoreUnreachable, match="no answer in time"):
        blobs.put(b"x")


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        ((403, "AccessDenied"), AccessDenied, "AccessDenied"),
        ((403, "SignatureDoesNotMatch"), AccessDenied, "SignatureDoesNotMatch"),
        ((403, "InvalidAccessKeyId"), AccessDenied, "AWS_ACCESS_KEY_ID"),
        ((403, "RequestTimeTooSkewed"), ClockSkew, "clock"),
        ((301, "PermanentRedirect"), NoSuchBucket, "region"),
        ((400, "AuthorizationHeaderMalformed"), NoSuchBucket, "region"),
        ((501, "NotImplemented"), StoreUnreachable, "501"),
        ((400, "InvalidRequest"), Unavailable, "InvalidRequest"),
    ],
)
def test_what_the_store_refuses_is_one_clear_error(
    proxy: Any, bucket: str, answer: tuple[int, str], kind: type[PenstockError], told: str
) -> None:
    blobs = open_blobs(f"s3://{bucket}/p?endpoint={proxy.url}&deadline=0.2")
    proxy.fault = lambda seen: answer
    digest = digest_bytes(b"x")
    for question in (
        lambda: blobs.put(b"x"),
        lambda: blobs.get(digest),
        lambda: blobs.read(digest, 1, 2),
        lambda: blobs.exists(digest),
        lambda: list(blobs.list()),
        lambda: blobs.condemn(digest),
        lambda: blobs.put(bytes(17 * MIB)),
    ):
        with pytest.raises(kind) as caught:
            question()
        assert told in str(caught.value)
        assert "not-a-secret" not in str(caught.value) + repr(caught.value.facts)
        assert caught.value.__suppress_context__


def test_a_bucket_that_is_not_there_is_named(moto: str) -> None:
    blobs = open_blobs(f"s3://no-such-bucket/p?endpoint={moto}")
    digest = digest_bytes(b"x")
    for question in (
        lambda: blobs.put(b"x"),
        lambda: blobs.get(digest),
        lambda: blobs.verify(digest),
        lambda: list(blobs.list()),
    ):
        with pytest.raises(NoSuchBucket, match="no-such-bucket"):
            question()


def test_missing_credentials_name_what_was_looked_at(
    proxy: Any, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    proxy.stop()
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{proxy.url}/latest/api/token")
    blobs = open_blobs(f"s3://{bucket}?endpoint={proxy.url}&deadline=0.2")
    with pytest.raises(NoCredentials, match="AWS_ACCESS_KEY_ID") as caught:
        blobs.put(b"x")
    assert "AWS_PROFILE" in caught.value.fix


def test_a_missing_blob_is_not_found_however_slow(through: Any, proxy: Any) -> None:
    proxy.fault = first(2, (500, "InternalError"))
    with pytest.raises(NotFound):
        through.get(digest_bytes(b"never"))
