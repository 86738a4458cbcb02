"""Whoever dies, and when: nothing half-made is seen, and only units in flight run again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.base.errors import UserCodeFailed
from penstock.base.settings import load_settings
from penstock.data.manifest import read_manifest
from penstock.data.preparation import prepare
from penstock.data.reading import read_split
from penstock.jobs.stores import Stores, open_stores

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("a_file_a_unit")]

SCRIPT = """
    import sys, time
    from pathlib import Path
    from penstock.base.settings import load_settings
    from penstock.data.preparation import cutting, prepare
    from penstock.jobs.stores import open_stores
    from slow_steps import slow

    def main():
        folder = Path(sys.argv[1])
        cutting.UNIT_BYTES = 1
        with open_stores(load_settings(home=folder / "home", environment={})) as stores:
            try:
                prepare(stores, "data", str(folder / "raw"), map=slow, key="id", workers=2,
                        params={"log": str(folder / "log")})
                print("done", flush=True)
            except KeyboardInterrupt:
                print("interrupted", flush=True)

    if __name__ == "__main__":
        main()
    """
SLOW = """
    import time

    def slow(row, log):
        with open(log, "a") as file:
            file.write(f"{row['id']}\\n")
        time.sleep(0.01)
        return row
    """


def whole(stores: Stores, rows: int) -> None:
    """Every version that can be seen has all its rows."""
    with stores.meta.read() as meta:
        versions = meta.versions("dataset")
    for version in versions:
        data = read_manifest(stores.blobs, version.digest)
        assert sum(read_split(stores.blobs, data, split).num_rows for split in data.splits) == rows


def until(holds: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def processes(folder: Path) -> set[int]:
    """Those that work in this folder."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink() == folder:
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def executions(log: Path) -> Counter[int]:
    return Counter(map(int, log.read_text().split())) if log.exists() else Counter()


def test_killed_on_any_line_nothing_half_made_is_seen(
    project: Any, chance: random.Random, in_child: Callable[..., int]
) -> None:
    project.files(6)
    settings = load_settings(home=project.stores.layout.root)

    def work() -> object:
        with open_stores(settings) as mine:
            return prepare(
                mine, "data", str(project.raw), map=project.steps.double, key="id", workers=0,
                shuffle=1, splits={"a": 0.5, "b": 0.5},
            )  # fmt: skip

    deaths = 0
    for line in sorted(chance.randrange(1, 6000) for _ in range(8)):
        deaths += in_child(work, die_at=line, part="penstock/data/preparation/") != 0
        whole(project.stores, 60)
    made = project.prepare(map=project.steps.double, shuffle=1, splits={"a": 0.5, "b": 0.5})
    assert made.version.summary["rows"] == 60
    assert deaths >= 1
    assert project.versions() == ["data@1"]


def test_a_killed_worker_repeats_only_what_it_had(project: Any) -> None:
    project.files(20)
    log = project.folder / "log"
    Path(f"{log}.deadly").write_text("77")
    made = project.prepare(map=project.steps.told, params={"log": str(log)}, workers=2)
    assert made.version.summary["rows"] == 200
    found = executions(log)
    twice = {number // 10 for number, times in found.items() if times > 1} - {0}  # 0 is sampled
    assert set(found) == set(range(200))
    assert 7 in twice
    assert len(twice) <= 8  # units that one worker had in hand


@pytest.fixture
def script(project: Any) -> Iterator[Callable[[], Any]]:
    (project.folder / "code" / "slow_steps.py").write_text(textwrap.dedent(SLOW))
    path = project.folder / "code" / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    started: list[Any] = []

    def run() -> Any:
        found = subprocess.Popen(
            [sys.executable, "-B", str(path), str(project.folder)],
            cwd=project.folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(found)
        return found

    yield run
    for each in started:
        each.kill()
        each.wait()


@pytest.mark.long
def test_a_killed_caller_is_continued_with_what_is_missing(
    project: Any, script: Callable[[], Any], chance: random.Random
) -> None:
    project.files(40)
    log = project.folder / "log"
    wanted = chance.randrange(100, 300)
    first = script()
    until(lambda: sum(executions(log).values()) >= wanted)
    first.kill()
    first.communicate()
    until(lambda: processes(project.folder) <= {os.getpid()})
    done, before = committed(project.stores), executions(log)
    assert project.versions() == []
    second = script()
    assert second.communicate(timeout=60)[0] == "done\n"
    again = executions(log) - before
    assert {number // 10 for number in again} <= set(range(40)) - done | {0}
    assert done
    whole(project.stores, 400)
    assert project.versions() == ["data@1"]


def committed(stores: Stores) -> set[int]:
    """Units whose output is committed, by the number of their file."""
    with stores.meta.read() as meta:
        run = meta.newest_run("data", "prepare")
        units = [] if run is None else meta.units(run.id, ("done",))
    return {int(unit.payload["names"][0].removeprefix("part-")[:3]) for unit in units}


def test_ctrl_c_leaves_no_process_and_is_continued(project: Any, script: Callable[[], Any]) -> None:
    project.files(40)
    first = script()
    until(lambda: committed(project.stores))
    first.send_signal(signal.SIGINT)
    assert first.communicate(timeout=60)[0] == "interrupted\n"
    until(lambda: processes(project.folder) <= {os.getpid()})
    assert project.versions() == []
    done, before = committed(project.stores), executions(project.folder / "log")
    assert script().communicate(timeout=60)[0] == "done\n"
    again = executions(project.folder / "log") - before
    assert {number // 10 for number in again} <= set(range(40)) - done | {0}


def test_an_error_keeps_what_was_done(project: Any) -> None:
    project.files(10)
    with pytest.raises(UserCodeFailed):
        project.prepare(map=lambda row: {**row, "y": 1 / (row["id"] - 95)})
    assert project.versions() == []
    project.write(9, rows=5)
    made = project.prepare(map=project.steps.double)
    assert made.version.summary["rows"] == 95


def test_two_writers_of_one_name_make_two_versions(project: Any) -> None:
    project.files(10)
    settings = load_settings(home=project.stores.layout.root)
    children = []
    ready, go = os.pipe()
    for step in ("double", "even"):
        child = os.fork()
        if child == 0:
            status = 70
            try:
                os.close(go)
                os.read(ready, 1)
                kind = {"double": "map", "even": "filter"}[step]
                with open_stores(settings) as mine:
                    options = {kind: getattr(project.steps, step)}
                    prepare(mine, "data", str(project.raw), key="id", workers=0, **options)
                    status = 0
            finally:
                os._exit(status)
        children.append(child)
    os.close(go)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    os.close(ready)
    assert sorted(project.versions()) == ["data@1", "data@2"]
    with project.stores.meta.read() as meta:
        newest = meta.get_version("dataset", "data")
        rows = {each.summary["rows"] for each in meta.versions("dataset")}
    assert (newest.version, rows) == (2, {50, 100})


def test_two_that_prepare_the_same_make_one_version(project: Any) -> None:
    project.files(10)
    settings = load_settings(home=project.stores.layout.root)
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            status = 70
            try:
                with open_stores(settings) as mine:
                    prepare(
                        mine, "data", str(project.raw), map=project.steps.double, key="id",
                        workers=0,
                    )  # fmt: skip
                    status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 3
    assert project.versions() == ["data@1"]
    whole(project.stores, 100)


def test_a_lost_unit_is_made_again(project: Any) -> None:
    project.files(10)
    first = project.prepare(map=project.steps.double)
    data = project.manifest(first)
    with project.stores.meta.read() as meta:
        run = meta.newest_run("data", "prepare")
        unit = meta.units(run.id)[3]
    for digest in (unit.result["blob"], data.shards[0].digest):
        project.stores.blobs.condemn(digest)
        project.stores.blobs.purge(digest)
    made = project.prepare(map=project.steps.double)
    assert project.ran() == 1
    assert (made.reference, made.version.digest) == ("data@1", first.version.digest)
    whole(project.stores, 100)
