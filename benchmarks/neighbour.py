"""An epoch on a second node, after a first one's: what comes from the neighbour's cache.

The store is moto's S3 server. Rows are int32[1025], 1024 a shard of 4.2 MB, read in random order in
windows, without steps between batches: what is measured is how fast shards come. A node is a home
of its own; the first one's cache is served by a process as its agent serves it, over TLS with a
token. The second node reads an epoch with the neighbour, and, in a third home, one without. With a
dead neighbour: the door is one at which nobody listens.

All processes share this machine's cores, the store as well, so seconds say what it costs on them
and not what a network would do: a store that is far away and a neighbour that is near differ more.

Prediction: all bytes come from the neighbour but those of the manifest, so a share of 1.0, with
moto's Python in the path of the other: 100 MB take it 1 to 2 s, and TLS in one process 0.3 s; half
the time or less. A dead neighbour costs nothing that is seen: one refused connection.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks import _subjects as subjects
from benchmarks.frame.bench import Bench

_SUBJECTS = Path(__file__).parent / "subjects"
_TIMEOUT = 300.0
_KEYS = {"AWS_ACCESS_KEY_ID": "AKIDBENCH", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}
_WITH, _WITHOUT, _DEAD = "neighbour", "store alone", "dead neighbour"


def measure(bench: Bench) -> None:
    shards = 12 if bench.quick else 48
    url = _store(bench)
    digest = _said(bench, "shards.py", url, str(shards))[-1]
    first = bench.folder("first")
    door = bench.folder("door") / "door"
    _serve(bench, first, door)
    _epoch(bench, "first node", url, digest, first, None)

    def second(subject: str, neighbour: Path | None) -> None:
        _epoch(bench, subject, url, digest, bench.folder("home"), neighbour)

    dead = _dead(bench, door)
    bench.alternate(
        bench.rounds(quick=2, full=5),
        lambda: second(_WITH, door),
        lambda: second(_WITHOUT, None),
        lambda: second(_DEAD, dead),
    )
    share = bench.median(_WITH, "share from the neighbour")
    bench.at_least("bytes from the neighbour", 0.9, share, "of all")
    ratio = bench.ratio("with the neighbour / store alone", "epoch", over=_WITH, under=_WITHOUT)
    bench.at_most("an epoch with the neighbour", 1.0, ratio, "of one from the store")
    ratio = bench.ratio("dead neighbour / store alone", "epoch", over=_DEAD, under=_WITHOUT)
    bench.at_most("an epoch with a dead neighbour", 1.2, ratio, "of one from the store")


def _store(bench: Bench) -> str:
    log = bench.folder("log") / "log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    server = bench.start(command, log=log, env={**os.environ, **_KEYS})
    pattern = re.compile(r"Running on (http://127\.0\.0\.1:(\d+))")
    subjects.wait_for(lambda: pattern.search(log.read_text()), server, 60.0)
    found = pattern.search(log.read_text())
    assert found is not None
    connection = http.client.HTTPConnection("127.0.0.1", int(found[2]), timeout=30)
    connection.request("PUT", "/bucket")
    assert connection.getresponse().status == 200
    connection.close()
    return f"s3://bucket/data?endpoint={found[1]}&region=us-east-1"


def _serve(bench: Bench, home: Path, door: Path) -> None:
    log = bench.folder("log") / "log"
    command = [sys.executable, str(_SUBJECTS / "neighbour_serve.py"), str(home), str(door)]
    server = bench.start(command, log=log)
    subjects.wait_for(door.exists, server, 30.0)


def _dead(bench: Bench, door: Path) -> Path:
    """The same neighbour at a port where nobody listens."""
    path = bench.folder("door") / "door"
    told = json.loads(door.read_text())
    for each in told["doors"].values():
        each["port"] = 1
    path.write_text(json.dumps(told))
    return path


def _epoch(
    bench: Bench, subject: str, url: str, digest: str, home: Path, neighbour: Path | None
) -> None:
    told = {"home": str(home), "url": url, "digest": digest, "seed": bench.seed}
    told["neighbour"] = str(neighbour) if neighbour is not None else ""
    lines = _said(bench, "neighbour_epoch.py", json.dumps(told))
    found: dict[str, Any] = json.loads(lines[-1])
    bench.add(subject, "epoch", "s", found["seconds"])
    bench.add(subject, "share from the neighbour", "", found["near"] / max(1, found["bytes"]))
    bench.add(subject, "from the store", "MB", found["fetched"] / 1e6)


def _said(bench: Bench, script: str, *rest: str) -> list[str]:
    log = bench.folder("log") / "log"
    command = [sys.executable, str(_SUBJECTS / script), *rest]
    done = bench.start(command, log=log, env={**os.environ, **_KEYS})
    if done.wait(timeout=_TIMEOUT):
        raise RuntimeError(f"{script} failed: {log.read_text(errors='replace')[-800:]}")
    return log.read_text().splitlines()
