"""What every blob store holds to."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.base.errors import BadInput, NotFound
from penstock.base.hashing import digest_bytes
from penstock.blobs import Blobs, open_blobs

NOWHERE = digest_bytes(b"never stored")
same_store = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_what_was_put_is_read_back_under_its_digest(blobs: Blobs) -> None:
    digest = blobs.put(b"water")
    assert digest == digest_bytes(b"water")
    assert blobs.get(digest) == b"water"
    assert blobs.exists(digest)
    blobs.verify(digest)


@pytest.mark.parametrize(
    "form",
    [
        lambda data: memoryview(data),
        lambda data: bytearray(data),
        lambda data: iter([data[:3], b"", data[3:]]),
        lambda data: [data],
    ],
    ids=["memoryview", "bytearray", "iterator", "list"],
)
def test_the_form_of_the_data_does_not_matter(blobs: Blobs, form: object) -> None:
    data = b"the same bytes"
    assert blobs.put(form(data)) == digest_bytes(data)  # type: ignore[operator]
    assert blobs.get(digest_bytes(data)) == data


def test_a_view_of_wider_items_is_stored_as_its_bytes(blobs: Blobs) -> None:
    view = memoryview(bytes(range(16))).cast("I")
    assert blobs.get(blobs.put(view)) == bytes(range(16))


def test_the_empty_blob_is_a_blob(blobs: Blobs) -> None:
    assert blobs.put(b"") == blobs.put([]) == blobs.put(memoryview(b"")) == digest_bytes(b"")
    assert blobs.get(digest_bytes(b"")) == b""


def test_a_file_is_stored_and_stays(blobs: Blobs, tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"w" * 3_000_000)
    digest = blobs.put_file(source)
    assert digest == digest_bytes(b"w" * 3_000_000)
    assert source.stat().st_size == blobs.stat(digest).size == 3_000_000  # type: ignore[union-attr]


def test_putting_twice_gives_one_blob(blobs: Blobs) -> None:
    assert blobs.put(b"once") == blobs.put([b"on", b"ce"])
    assert [stat.size for stat in blobs.list()] == [4]


def test_a_put_whose_source_fails_leaves_nothing(blobs: Blobs) -> None:
    def torn() -> object:
        yield b"first half"
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="broke"):
        blobs.put(torn())  # type: ignore[arg-type]
    assert list(blobs.list()) == []


@pytest.mark.parametrize("question", ["get", "read", "path", "verify"])
def test_a_missing_blob_is_not_found(blobs: Blobs, question: str) -> None:
    if question == "path" and blobs.path(blobs.put(b"x")) is None:
        assert blobs.path(NOWHERE) is None, "an engine without files does not look"
        return
    with pytest.raises(NotFound) as caught:
        getattr(blobs, question)(NOWHERE)
    assert caught.value.facts["digest"] == NOWHERE


def test_a_put_that_mends_changes_nothing_that_is_whole(blobs: Blobs) -> None:
    digest = blobs.put(b"whole", mend=True)
    assert blobs.put(b"whole", mend=True) == blobs.put([b"whole"], mend=True) == digest
    assert blobs.get(digest) == b"whole"
    assert len(list(blobs.list())) == 1


def test_a_missing_blob_cannot_be_opened_and_has_no_stat(blobs: Blobs) -> None:
    with pytest.raises(NotFound), blobs.open(NOWHERE):
        pass
    assert blobs.stat(NOWHERE) is None
    assert not blobs.exists(NOWHERE)


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:../../../etc/passwd", "sha256:" + "A" * 64, NOWHERE + "\n"]
)
@pytest.mark.parametrize(
    "question",
    ["get", "read", "path", "verify", "stat", "exists", "condemn", "restore", "purge"],
)
def test_text_that_is_no_digest_never_becomes_a_path(
    blobs: Blobs, question: str, text: str
) -> None:
    with pytest.raises(BadInput):
        getattr(blobs, question)(text)


@same_store
@given(
    data=st.binary(max_size=200),
    start=st.integers(0, 250),
    length=st.none() | st.integers(0, 250),
)
def test_a_range_is_what_a_slice_would_be(
    blobs: Blobs, data: bytes, start: int, length: int | None
) -> None:
    end = None if length is None else start + length
    assert blobs.read(blobs.put(data), start, length) == data[start:end]


@pytest.mark.parametrize(("start", "length"), [(-1, None), (0, -1)])
def test_a_negative_range_is_refused(blobs: Blobs, start: int, length: int | None) -> None:
    with pytest.raises(BadInput):
        blobs.read(blobs.put(b"x"), start, length)


def test_a_stream_can_seek(blobs: Blobs) -> None:
    with blobs.open(blobs.put(b"0123456789")) as stream:
        stream.seek(4)
        assert stream.read(2) == b"45"
        stream.seek(-1, 2)
        assert stream.read() == b"9"


def test_a_path_where_there_is_one_holds_the_bytes(blobs: Blobs) -> None:
    path = blobs.path(blobs.put(b"map me"))
    assert path is None or path.read_bytes() == b"map me"


def test_the_list_has_every_visible_blob(blobs: Blobs) -> None:
    digests = {blobs.put(str(n).encode()) for n in range(20)}
    assert {stat.digest for stat in blobs.list()} == digests
    assert list(blobs.condemned()) == []


def test_a_condemned_blob_is_out_of_sight_but_readable(blobs: Blobs) -> None:
    digest = blobs.put(b"old")
    before = blobs.stat(digest).modified  # type: ignore[union-attr]
    blobs.condemn(digest)
    assert not blobs.exists(digest)
    assert list(blobs.list()) == []
    [stat] = blobs.condemned()
    assert (stat.digest, stat.size) == (digest, 3)
    assert stat.modified >= before
    assert blobs.get(digest) == blobs.read(digest) == b"old"
    blobs.verify(digest)
    with blobs.open(digest) as stream:
        assert stream.read() == b"old"
    path = blobs.path(digest)
    assert path is None or path.read_bytes() == b"old"


def test_a_restored_blob_is_visible_again(blobs: Blobs) -> None:
    digest = blobs.put(b"needed after all")
    blobs.condemn(digest)
    blobs.restore(digest)
    assert blobs.exists(digest)
    assert list(blobs.condemned()) == []


def test_a_purged_blob_is_gone(blobs: Blobs) -> None:
    digest = blobs.put(b"rubbish")
    blobs.condemn(digest)
    blobs.purge(digest)
    with pytest.raises(NotFound):
        blobs.get(digest)


def test_a_put_after_the_condemnation_survives_the_purge(blobs: Blobs) -> None:
    digest = blobs.put(b"again")
    blobs.condemn(digest)
    assert blobs.put(b"again") == digest
    blobs.purge(digest)
    assert blobs.get(digest) == b"again"
    assert blobs.exists(digest)


def test_restoring_beside_a_new_copy_leaves_one(blobs: Blobs) -> None:
    digest = blobs.put(b"twice")
    blobs.condemn(digest)
    blobs.put(b"twice")
    blobs.restore(digest)
    assert list(blobs.condemned()) == []
    assert [stat.digest for stat in blobs.list()] == [digest]


def test_purge_does_not_touch_what_is_not_condemned(blobs: Blobs) -> None:
    digest = blobs.put(b"visible")
    blobs.purge(digest)
    assert blobs.get(digest) == b"visible"


def test_steps_of_removal_may_be_repeated(blobs: Blobs) -> None:
    digest = blobs.put(b"x")
    for step in (blobs.condemn, blobs.condemn, blobs.purge, blobs.purge, blobs.restore):
        step(digest)
    assert not blobs.exists(digest)
    blobs.condemn(NOWHERE)
    blobs.restore(NOWHERE)


def test_many_threads_may_put_the_same_and_different_bytes(blobs: Blobs) -> None:
    contents = [bytes([n % 5]) * 10_000 for n in range(40)]
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda data=data: found.append(blobs.put(data)))
        for data in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(digest_bytes(data) for data in contents)
    assert len(list(blobs.list())) == 5
    for digest in set(found):
        blobs.verify(digest)


def test_the_url_opens_the_same_store(blobs: Blobs) -> None:
    digest = blobs.put(b"shared")
    assert open_blobs(blobs.url).get(digest) == b"shared"


@pytest.mark.parametrize(
    "url", ["fil:///x", "/plain/path", "", "s3x://bucket", "file://relative/x"]
)
def test_a_url_that_is_not_known_is_refused(url: str) -> None:
    with pytest.raises(BadInput) as caught:
        open_blobs(url)
    assert "file:///" in caught.value.fix


def test_the_nearest_scheme_is_offered() -> None:
    with pytest.raises(BadInput) as caught:
        open_blobs("fiel:///x")
    assert '"file"' in caught.value.fix


def test_a_store_in_memory_of_another_process_is_not_found() -> None:
    with pytest.raises(NotFound):
        open_blobs("memory://4711-nobody")


def test_a_blob_that_was_written_anew_is_not_replaced_by_its_condemned_copy(blobs: Blobs) -> None:
    digest = blobs.put(b"twice")
    blobs.condemn(digest)
    assert blobs.put(b"twice") == digest
    blobs.restore(digest)
    assert blobs.get(digest) == b"twice"
    assert list(blobs.condemned()) == []
