"""A node asks its neighbours' caches before the store; whatever a neighbour does, rows are exact.

A neighbour is a process of its own that serves as an agent does; homes and caches are apart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.conftest import flip

from penstock.base.layout import Layout
from penstock.blobs import Blobs, open_blobs
from penstock.blobs.local import LocalBlobs
from penstock.data import Manifest, ShardSource
from penstock.data.cache import Counters, ShardCache, node_counters
from penstock.jobs.neighbours import VARIABLE, doors, reads
from penstock.jobs.neighbours.doors import Neighbours
from penstock.jobs.neighbours.ranking import ranked
from penstock.jobs.rpc import Door

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

SERVER = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from penstock.base import process
from penstock.jobs.agent import door
from penstock.jobs.agent.lending import Lending
from penstock.jobs.agent.parts import Parts

process.die_with_parent(int(sys.argv[2]))
read = Lending(Path(sys.argv[1]), True, Parts()).read
server, mine = door.open_for_neighbours({"elsewhere": {"host": "127.0.0.1"}}, read)
print(json.dumps(asdict(mine)), flush=True)
sys.stdin.read()
"""
SHARDS = 20


class Remote(LocalBlobs):
    """A store whose files are not ours to map; counts what is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.bytes = 0
        self.hold = threading.Event()
        self.hold.set()
        self.asked = threading.Event()

    def path(self, digest: str) -> Path | None:
        return None

    def get(self, digest: str) -> bytes:
        self.asked.set()
        self.hold.wait(20)
        data = super().get(digest)
        self.bytes += len(data)
        return data


class Node:
    """A home with a cache, and a process that serves it."""

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(folder)
        folder.mkdir()
        command = [sys.executable, "-c", SERVER, str(folder), str(os.getpid())]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdout is not None
        self.door = Door(**json.loads(self.process.stdout.readline()))

    def files(self) -> list[Path]:
        return sorted(self.layout.shards.glob("v2/*.arrow"))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[[], Node]]:
    made: list[Node] = []

    def make() -> Node:
        made.append(Node(tmp_path / f"node-{len(made)}"))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def blobs(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "blobs")


def rows() -> dict[str, Any]:
    x = np.random.default_rng(0).integers(0, 255, (320, 1024), dtype=np.uint8)
    return {"id": np.arange(320), "x": x}


@pytest.fixture
def data(make: Any, blobs: Blobs) -> Manifest:
    """20 shards of 16 KiB."""
    return make(blobs, rows(), shard_rows=16)  # type: ignore[no-any-return]


@pytest.fixture
def introduce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`introduce(a=door, …)`: this process is node "me" and knows those; at once also later."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv(VARIABLE, str(folder / doors.FILE))

    def run(**known: Door) -> None:
        doors.write(folder, Neighbours("me", known))

    return run


def epoch(blobs: Blobs, layout: Layout, data: Manifest) -> Counters:
    """Every row in a random order, compared with what was written."""
    source = ShardSource(blobs, layout, data, "all")
    expected = rows()
    order = np.random.default_rng(1).permutation(320)
    for some in np.array_split(order, 10):
        found = source.gather(some)
        assert np.array_equal(found["x"], expected["x"][found["id"]])
    counters = source.counters()
    source.close()
    return counters


# who is asked


def test_what_a_neighbour_has_is_not_read_from_the_store(
    node: Any, introduce: Any, blobs: Remote, data: Manifest, layout: Layout
) -> None:
    one = node()
    introduce()
    first = epoch(blobs, one.layout, data)
    assert (first.near, first.fetched) == (0, blobs.bytes) and blobs.bytes > SHARDS * 16_000
    introduce(one=one.door)
    second = epoch(blobs, layout, data)
    assert (second.near, second.fetched, second.refused) == (first.fetched, 0, 0)
    assert node_counters(layout.shards / "v2").near == second.near
    third = epoch(blobs, layout, data)
    assert (third.near, third.misses) == (0, 0)


def test_a_shard_that_was_parquet_comes_laid_out(
    node: Any, introduce: Any, blobs: Remote, make: Any, layout: Layout
) -> None:
    given = {"id": np.arange(8), "name": np.array([f"n{n}" for n in range(8)])}
    data = make(blobs, given, shard_rows=4)
    assert {each.format for each in data.shards} == {"parquet"}
    one = node()
    introduce()
    for shard in data.shards:
        ShardCache(blobs, one.layout.shards).open(shard)
    before = blobs.bytes
    introduce(one=one.door)
    cache = ShardCache(blobs, layout.shards)
    found = [cache.open(shard).batch for shard in data.shards]
    assert [name for batch in found for name in batch["name"].to_pylist()] == list(given["name"])
    assert blobs.bytes == before and cache.counters().near > 0


def test_a_flipped_byte_of_one_that_was_parquet_is_found(
    node: Any, introduce: Any, blobs: Remote, make: Any, layout: Layout
) -> None:
    given = {"id": np.arange(8), "name": np.array([f"n{n}" for n in range(8)])}
    (shard,) = make(blobs, given).shards
    one = node()
    introduce()
    ShardCache(blobs, one.layout.shards).open(shard)
    flip(one.files()[0])
    introduce(one=one.door)
    cache = ShardCache(blobs, layout.shards)
    assert cache.open(shard).batch["name"].to_pylist() == list(given["name"])
    counters = cache.counters()
    assert (counters.near, counters.refused) == (0, 1) and counters.fetched > 0


def test_without_neighbours_nobody_is_asked(
    introduce: Any, blobs: Remote, data: Manifest, layout: Layout
) -> None:
    found = epoch(blobs, layout, data)  # the file is not there yet
    assert (found.near, found.refused) == (0, 0) and found.fetched == blobs.bytes


def test_all_nodes_agree_whom_to_ask_first_and_it_is_not_always_the_same() -> None:
    nodes = ["a", "b", "c", "d"]
    first = [ranked(str(n), nodes)[0] for n in range(400)]
    assert {each: 60 < first.count(each) < 140 for each in nodes} == dict.fromkeys(nodes, True)
    gone = [ranked(str(n), ["a", "b", "c"])[0] for n in range(400)]
    assert all(now == then for now, then in zip(gone, first, strict=True) if then != "d")


def test_a_shard_that_a_neighbour_is_fetching_is_waited_for(
    node: Any, introduce: Any, blobs: Remote, data: Manifest, tmp_path: Path, layout: Layout
) -> None:
    """Where the neighbour comes first for it: the store is read once for both."""
    one = node()
    shards = [
        each
        for each in data.shards
        if ranked(f"v2/{each.digest[7:]}.arrow", ["me", "one"])[0] == "one"
    ]
    blobs.hold.clear()
    theirs = ShardCache(blobs, one.layout.shards)
    fetching = threading.Thread(target=theirs.open, args=(shards[0],))
    fetching.start()  # asks nobody: there is no file with doors yet
    assert blobs.asked.wait(10)
    introduce(one=one.door)
    mine = ShardCache(blobs, layout.shards)
    asking = threading.Thread(target=mine.open, args=(shards[0],))
    asking.start()
    blobs.hold.set()
    fetching.join(20)
    asking.join(20)
    assert (mine.counters().near, mine.counters().fetched) == (shards[0].bytes, 0)
    assert blobs.bytes == shards[0].bytes


# what neighbours may do


def is_complete_and_said(
    found: Counters, blobs: Remote, before: int, caplog: Any, refused: int | None = None
) -> None:
    assert found.fetched == blobs.bytes - before > 0
    assert "a neighbour is not asked for a while" in caplog.text
    assert refused is None or found.refused == refused


@pytest.fixture
def filled(node: Any, introduce: Any, blobs: Remote, data: Manifest) -> Node:
    """A node that has all shards."""
    one: Node = node()
    introduce()
    epoch(blobs, one.layout, data)
    return one


def test_a_neighbour_that_was_killed_costs_nothing_but_the_store(
    filled: Node, introduce: Any, blobs: Remote, data: Manifest, layout: Layout, caplog: Any
) -> None:
    filled.close()
    introduce(one=filled.door)
    before = blobs.bytes
    found = epoch(blobs, layout, data)
    assert found.near == 0
    is_complete_and_said(found, blobs, before, caplog)


def test_a_silent_neighbour_costs_one_deadline(
    filled: Node,
    introduce: Any,
    blobs: Remote,
    data: Manifest,
    layout: Layout,
    caplog: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    whole = reads.Reader.begin

    def begin(self: reads.Reader, asked: Any) -> Any:
        calls.append(asked)
        return whole(self, asked)

    monkeypatch.setattr(reads.Reader, "begin", begin)
    filled.process.send_signal(signal.SIGSTOP)
    introduce(one=filled.door)
    before = blobs.bytes
    found = epoch(blobs, layout, data)
    filled.process.send_signal(signal.SIGCONT)
    assert found.near == 0 and len(calls) <= 4  # at most by each thread that fetches ahead
    is_complete_and_said(found, blobs, before, caplog)


def test_a_neighbour_that_lies_is_found_out(
    filled: Node, introduce: Any, blobs: Remote, data: Manifest, layout: Layout, caplog: Any
) -> None:
    for path in filled.files():
        flip(path)
    introduce(one=filled.door)
    before = blobs.bytes
    found = epoch(blobs, layout, data)
    assert found.near == 0 and 1 <= found.refused <= 4
    is_complete_and_said(found, blobs, before, caplog)
    assert "other bytes than the manifest says" in caplog.text


def test_a_torn_file_is_found_out(
    filled: Node, introduce: Any, blobs: Remote, data: Manifest, layout: Layout, caplog: Any
) -> None:
    for path in filled.files():
        path.chmod(0o644)
        os.truncate(path, path.stat().st_size // 2)
    introduce(one=filled.door)
    before = blobs.bytes
    found = epoch(blobs, layout, data)
    assert found.near == 0 and found.refused >= 1
    is_complete_and_said(found, blobs, before, caplog)


def test_with_a_wrong_token_nothing_is_given(
    filled: Node, introduce: Any, blobs: Remote, data: Manifest, layout: Layout, caplog: Any
) -> None:
    introduce(one=replace(filled.door, token="guessed"))
    before = blobs.bytes
    found = epoch(blobs, layout, data)
    assert found.near == 0
    is_complete_and_said(found, blobs, before, caplog)
    assert "UNAUTHENTICATED" in caplog.text and "guessed" not in caplog.text


def test_another_neighbour_is_asked_where_one_is_no_good(
    filled: Node, introduce: Any, node: Any, blobs: Remote, data: Manifest, layout: Layout
) -> None:
    bad = node()
    bad.close()
    introduce(bad=bad.door, one=filled.door)
    before = blobs.bytes
    found = epoch(blobs, layout, data)
    assert (found.fetched, blobs.bytes) == (0, before)


@pytest.mark.parametrize(
    "name", ["../../secret", "v2/../x.arrow", "v2/" + "a" * 63 + ".arrow", "v2/counters", ""]
)
def test_other_files_are_not_given(node: Any, name: str) -> None:
    one = node()
    (one.layout.shards / "v2").mkdir(parents=True)
    (one.layout.shards / "v2" / "counters").write_bytes(b"no")
    reader = reads.Reader(one.door)
    with pytest.raises(reads.NotThere):
        reader.begin({"shard": name})
    reader.close()


def test_a_large_file_comes_in_tranches_and_whole(node: Any) -> None:
    one = node()
    body = np.random.default_rng(3).bytes(reads.TRANCHE * 2 + 12_345)
    place = one.layout.shards / "v2" / f"{7:064x}.arrow"
    place.parent.mkdir(parents=True)
    place.write_bytes(body)
    reader = reads.Reader(one.door)
    about, pieces = reader.begin({"shard": f"v2/{place.name}"})
    found = list(pieces)
    assert about["bytes"] == len(body) and b"".join(found) == body
    assert max(map(len, found)) <= reads.PIECE
    reader.close()


def test_a_fork_asks_nobody(
    filled: Node, introduce: Any, blobs: Remote, data: Manifest, layout: Layout, in_child: Any
) -> None:
    """gRPC's threads are not in it, and it must not wait for them."""
    introduce(one=filled.door)
    cache = ShardCache(blobs, layout.shards)
    assert cache.open(data.shards[0]).name
    assert cache.counters().near

    def work() -> None:
        mine = ShardCache(blobs, Layout(layout.root / "child").shards)
        mine.open(data.shards[1])
        assert (mine.counters().near, mine.counters().fetched) == (0, data.shards[1].bytes)

    assert in_child(work) == 0


# the same with a real object store


@pytest.mark.s3
def test_from_s3_the_second_node_reads_nine_tenths_from_the_first(
    node: Any, introduce: Any, s3: str, make: Any, layout: Layout
) -> None:
    blobs = open_blobs(s3)
    data = make(blobs, rows(), shard_rows=16)
    one = node()
    introduce()
    first = epoch(blobs, one.layout, data)
    introduce(one=one.door)
    second = epoch(blobs, layout, data)
    assert first.near == 0 and second.near >= 0.9 * first.fetched
    assert second.near + second.fetched == first.fetched
