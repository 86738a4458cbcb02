"""The object-store engine on moto: places, requests per operation, streams, forks, deaths."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from obstore.store import S3Store

from penstock.base.errors import NotFound
from penstock.base.hashing import digest_bytes
from penstock.blobs import open_blobs

pytestmark = pytest.mark.s3

MIB = 1 << 20


@pytest.fixture
def blobs(s3: str) -> Any:
    return open_blobs(s3)


@pytest.fixture
def keys(moto: str, bucket: str) -> Callable[[], list[str]]:
    """All keys of the bucket, seen past the engine."""
    store = S3Store(bucket, endpoint=moto, client_options={"allow_http": True})
    return lambda: sorted(each["path"] for page in store.list() for each in page)


def place(data: bytes) -> str:
    name = digest_bytes(data).removeprefix("sha256:")
    return f"{name[:2]}/{name[2:]}"


# requests: the table of docs/blobs.md


def spent(blobs: Any, work: Callable[[], object]) -> dict[str, int]:
    before = dict(blobs.counters.requests)
    work()
    grown = {kind: n - before.get(kind, 0) for kind, n in blobs.counters.requests.items()}
    return {kind: n for kind, n in grown.items() if n}


def test_what_each_operation_costs_in_requests(blobs: Any) -> None:
    small, middle, large = b"s", os.urandom(MIB), os.urandom(40 * MIB)
    assert spent(blobs, lambda: blobs.put(small)) == {"put": 1}
    assert spent(blobs, lambda: blobs.put(small)) == {"put": 1, "head": 1}
    assert spent(blobs, lambda: blobs.put(middle)) == {"head": 1, "put": 1}
    assert spent(blobs, lambda: blobs.put(middle)) == {"head": 1}
    assert spent(blobs, lambda: blobs.put(large)) == {"head": 1, "upload": 5}  # 3 parts, 2 ends
    s, m, large_one = map(digest_bytes, (small, middle, large))
    assert spent(blobs, lambda: blobs.get(s)) == {"get": 1}
    assert spent(blobs, lambda: blobs.get(m)) == {"get": 1}
    assert spent(blobs, lambda: blobs.get(large_one)) == {"get": 5}  # of 8 MiB
    assert spent(blobs, lambda: blobs.verify(large_one)) == {"get": 6}
    assert spent(blobs, lambda: blobs.read(m, 10, 10)) == {"get": 1}
    assert spent(blobs, lambda: blobs.stat(s)) == {"head": 1}
    assert spent(blobs, lambda: blobs.exists(s)) == {"head": 1}
    assert spent(blobs, lambda: blobs.path(s)) == {}
    assert spent(blobs, lambda: list(blobs.list())) == {"list": 1}
    assert spent(blobs, lambda: blobs.condemn(s)) == {"copy": 1, "delete": 2, "put": 1}
    assert spent(blobs, lambda: blobs.get(s)) == {"get": 2}
    assert spent(blobs, lambda: list(blobs.condemned())) == {"list": 1}
    assert spent(blobs, lambda: blobs.restore(s)) == {"head": 1, "copy": 1, "delete": 2}
    blobs.condemn(s)
    assert spent(blobs, lambda: blobs.purge(s)) == {"delete": 2}


def test_bytes_are_counted(blobs: Any) -> None:
    digest = blobs.put(os.urandom(1000))
    blobs.read(digest, 0, 10)
    assert (blobs.counters.bytes_sent, blobs.counters.bytes_read) == (1000, 10)


def test_opening_sends_nothing_and_starts_nothing() -> None:
    code = (
        "import sys, threading; from penstock.blobs import open_blobs;"
        "b = open_blobs('s3://some-bucket/x'); b.counters, b.url;"
        "print('obstore' in sys.modules, threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "1"]


# places


def test_objects_lie_where_files_would_and_condemned_ones_beside(
    blobs: Any, keys: Callable[[], list[str]]
) -> None:
    digest = blobs.put(b"x")
    assert keys() == [f"some/prefix/{place(b'x')}"]
    blobs.condemn(digest)
    side = f"some/prefix/condemned/{place(b'x')}"
    assert keys() == [side, f"{side}.since"]
    blobs.purge(digest)
    assert keys() == []


def test_two_prefixes_of_a_bucket_are_two_stores(moto: str, bucket: str) -> None:
    one, other = (open_blobs(f"s3://{bucket}/{name}?endpoint={moto}") for name in ("a", "a-b"))
    whole = open_blobs(f"s3://{bucket}?endpoint={moto}")
    digest = one.put(b"mine")
    assert not other.exists(digest)
    assert list(other.list()) == list(whole.list()) == []
    assert [stat.digest for stat in one.list()] == [digest]


def test_objects_that_are_no_blobs_are_not_listed(blobs: Any, moto: str, bucket: str) -> None:
    store = S3Store(bucket, endpoint=moto, client_options={"allow_http": True})
    for key in ("README", "ab/short", "condemned/README", f"zz/{'0' * 62}", "tmp/x"):
        store.put(f"some/prefix/{key}", b"mine")
    assert list(blobs.list()) == list(blobs.condemned()) == []


def test_a_list_of_many_pages_is_whole_though_a_page_fails(through: Any, proxy: Any) -> None:
    expected = put_many(through, 1100)
    proxy.seen.clear()
    lists = [0]

    def second_page_fails(seen: Any) -> object:
        lists[0] += "list-type" in seen.path
        return (500, "InternalError") if "list-type" in seen.path and lists[0] == 2 else None

    proxy.fault = second_page_fails
    found = [stat.digest for stat in through.list()]
    assert len(found) == len(set(found))
    assert set(found) == expected


def put_many(blobs: Any, count: int) -> set[str]:
    found: set[str] = set()

    def put(numbers: range) -> None:
        for n in numbers:
            found.add(blobs.put(b"%d" % n))

    threads = [threading.Thread(target=put, args=(range(k, count, 8),)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


# large blobs


@pytest.mark.parametrize("size", [8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 16 * MIB, 16 * MIB + 1])
def test_sizes_around_the_borders_of_requests(blobs: Any, size: int) -> None:
    data = random.Random(size).randbytes(size)
    digest = blobs.put([data[:1000], data[1000:]])
    assert blobs.stat(digest).size == size
    assert blobs.get(digest) == data
    blobs.verify(digest)
    with blobs.open(digest) as stream:
        assert stream.read() == data


def test_a_long_range_is_read_in_pieces(blobs: Any) -> None:
    data = os.urandom(30 * MIB)
    digest = blobs.put(data)
    assert blobs.read(digest, 5, 20 * MIB) == data[5 : 5 + 20 * MIB]
    assert blobs.read(digest, 25 * MIB) == data[25 * MIB :]
    assert blobs.read(digest, 25 * MIB, 1 << 40) == data[25 * MIB :]


def test_a_stream_of_unknown_length_is_put_in_bounded_memory(s3: str, tmp_path: Path) -> None:
    (tmp_path / "put.py").write_text("""
import sys, threading
from penstock.blobs import open_blobs
from penstock.blobs.remote import engine, spool

engine.SINGLE, engine.PIECE, engine.WINDOW, spool.IN_MEMORY = 5 << 20, 4 << 20, 4, 4 << 20
peak, over = 0, threading.Event()

def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("RssAnon"))

def watch():
    global peak
    while not over.wait(0.002):
        peak = max(peak, anonymous())

blobs = open_blobs(sys.argv[1])
blobs.put(b"warm")
before = anonymous()
watcher = threading.Thread(target=watch)
watcher.start()
blobs.verify(blobs.put(bytes([n]) * (1 << 20) for n in range(50)))
over.set()
watcher.join()
print(peak - before)
""")
    done = subprocess.run(
        [sys.executable, tmp_path / "put.py", s3], capture_output=True, text=True, check=True
    )
    # Of 50 MiB: 4 spooled, 4 parts of 5 under way and as many being cut, or 4 pieces of 4.
    assert int(done.stdout) < 45


def test_a_sequential_reader_is_read_ahead_of_and_a_jump_is_one_request(blobs: Any) -> None:
    data = os.urandom(30 * MIB)
    digest = blobs.put(data)

    def in_order() -> None:
        with blobs.open(digest) as stream:
            for at in range(0, len(data), 4096 * 16):
                assert stream.read(4096 * 16) == data[at : at + 4096 * 16]

    def one_place() -> None:
        with blobs.open(digest) as stream:
            stream.seek(20 * MIB)
            assert stream.read(100) == data[20 * MIB : 20 * MIB + 100]

    assert spent(blobs, in_order)["get"] <= 10  # 256 KiB, then four times more up to 8 MiB
    assert spent(blobs, one_place)["get"] == 2


def test_a_stream_reads_what_a_file_would(blobs: Any, chance: random.Random) -> None:
    data = chance.randbytes(3 * MIB)
    with blobs.open(blobs.put(data)) as stream:
        at = 0
        for _ in range(200):
            if chance.random() < 0.3:
                at = stream.seek(chance.randrange(len(data) + 10))
            length = chance.choice([1, 100, 5000, 300_000])
            assert stream.read(length) == data[at : at + length]
            at = stream.tell()


# removal that dies


@pytest.mark.faults
def test_a_remover_killed_at_any_line_loses_nothing(
    blobs: Any, in_child: Callable[..., int]
) -> None:
    digest = blobs.put(b"kept")
    for step in (blobs.condemn, blobs.restore):
        for line in range(1, 60):
            status = in_child(lambda step=step: step(digest), line, "remote/engine.py")
            assert blobs.get(digest) == b"kept"
            if status == 0:
                break
        assert status == 0
    assert blobs.exists(digest)
    assert list(blobs.condemned()) == []


@pytest.mark.faults
def test_a_collector_that_died_midway_is_finished_by_the_next(
    blobs: Any, in_child: Callable[..., int], keys: Callable[[], list[str]]
) -> None:
    digest = blobs.put(b"unwanted")
    for line in range(1, 60):
        in_child(lambda: blobs.condemn(digest), line, "remote/engine.py")
        if not blobs.exists(digest):
            break
    assert not any(key.endswith(".since") for key in keys()), (
        "killed before it could say since when"
    )
    [found] = blobs.condemned()
    assert found.digest == digest
    assert [stat.digest for stat in blobs.condemned()] == [digest]
    assert any(key.endswith(".since") for key in keys()), "the waiting has begun"
    blobs.purge(digest)
    assert keys() == []


def test_a_second_condemnation_starts_the_waiting_anew(blobs: Any, moto: str, bucket: str) -> None:
    digest = blobs.put(b"again")
    blobs.condemn(digest)
    store = S3Store(bucket, endpoint=moto, client_options={"allow_http": True})
    since = f"some/prefix/condemned/{place(b'again')}.since"
    first = store.head(since)["e_tag"], store.head(since)["last_modified"]
    blobs.put(b"again")
    store.put(since, b"the old one")
    blobs.condemn(digest)
    assert (store.head(since)["size"], first[0]) == (0, store.head(since)["e_tag"])


def test_what_a_dead_purge_left_is_tidied_up(
    blobs: Any, moto: str, bucket: str, keys: Callable[[], list[str]]
) -> None:
    digest = blobs.put(b"x")
    blobs.condemn(digest)
    S3Store(bucket, endpoint=moto, client_options={"allow_http": True}).delete(
        f"some/prefix/condemned/{place(b'x')}"
    )
    assert list(blobs.condemned()) == []
    assert keys() == []
    with pytest.raises(NotFound):
        blobs.get(digest)


def test_readers_find_a_blob_that_moves_to_and_fro(blobs: Any) -> None:
    digest = blobs.put(b"restless")
    over = threading.Event()
    failed: list[BaseException] = []

    def read() -> None:
        while not over.is_set():
            try:
                assert blobs.get(digest) == b"restless"
            except BaseException as error:  # noqa: BLE001 - told below
                failed.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(15):
        blobs.condemn(digest)
        blobs.restore(digest)
    over.set()
    for reader in readers:
        reader.join()
    assert failed == []


# processes


@pytest.mark.faults
def test_a_forked_child_reads_though_its_parent_had_the_store_open(
    blobs: Any, in_child: Callable[..., int]
) -> None:
    digest = blobs.put(b"inherited")

    def child() -> None:
        assert blobs.get(digest) == b"inherited"
        blobs.put(b"from the child")
        assert blobs.counters.total == 2, "the parent's requests are not the child's"
        pid = os.fork()
        if pid == 0:
            os._exit(0 if blobs.get(digest) == b"inherited" else 1)
        assert os.waitpid(pid, 0)[1] == 0

    assert in_child(child) == 0
    assert blobs.get(digest_bytes(b"from the child")) == b"from the child"


def test_a_process_ends_in_silence_with_a_request_under_way(proxy: Any, bucket: str) -> None:
    proxy.fault = lambda seen: "hang" if seen.method == "GET" else None
    code = (
        "import sys, threading; from contextlib import suppress;"
        "from penstock.blobs import open_blobs;"
        "b = open_blobs(sys.argv[1]); d = b.put(b'x')\n"
        "def read():\n"
        "    with suppress(BaseException): b.get(d)\n"
        "threading.Thread(target=read, daemon=True).start()\n"
        "while b.counters.requests.get('get', 0) == 0: pass"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code, f"s3://{bucket}?endpoint={proxy.url}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
