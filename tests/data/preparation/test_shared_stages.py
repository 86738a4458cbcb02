"""Small files share units, and what a step in the midst gave is kept: a file that changed runs
alone through all steps, a step that changed alone over all files, and the version is the one that
all give when they run."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.base.settings import load_settings
from penstock.data.preparation import explain, prepare, tables
from penstock.jobs.stores import open_stores

STEPS = """
    import os, signal
    from pathlib import Path

    PNG, JPEG = b"\\x89PNG\\r\\n\\x1a\\n0000", b"\\xff\\xd8\\xff000000000"
    VALUES = {"plain": [0], "list": [[1], [1, 2]], "tensor": [[1, 2]], "png": [PNG],
              "jpeg": [JPEG], "text": ["text"], "huge": [2**70, 1]}


    def noted(log, *ids):
        with open(log, "a") as file:
            file.write("".join(f"{each}\\n" for each in ids))


    def a(row, log="", plus=0, kinds=("plain",), bad=-1):
        noted(f"{log}.a", row["id"])
        if row["id"] % 10 == bad:
            raise ValueError(f"not {row['id']}")
        values = VALUES[kinds[row["id"] // 10 % len(kinds)]]
        return {"id": row["id"], "x": row["x"] + plus, "value": values[row["id"] % len(values)]}


    def twice(row):
        for part in range(row["id"] % 3):
            yield {**row, "part": part}


    def b(row, log="", times=1, ugly=-1):
        noted(f"{log}.b", row["id"])
        deadly = Path(f"{log}.deadly")
        if deadly.exists() and row["id"] == int(deadly.read_text()):
            deadly.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if row["id"] % 10 == ugly:
            raise ValueError(f"not {row['id']} either")
        part = row.get("part", 0)
        return {"id": f"{row['id']}-{part}", "y": row["x"] * times, "value": row["value"]}


    def odd(row):
        return row["id"] % 2


    def sums(columns, log="", times=1):
        noted(f"{log}.b", *columns["id"].tolist())
        rows = len(columns["id"])
        return {"id": columns["id"], "y": times * columns["x"].cumsum(), "of": [rows] * rows}


    def loud(row, log=""):
        noted(f"{log}.a", row["key"].partition(".")[0] + "0")
        if "bad" in row["text"]:
            raise ValueError("bad text")
        return {**row, "text": row["text"].upper()}


    def louder(columns, log="", times=1):
        noted(f"{log}.b", *(key.partition(".")[0] + "0" for key in columns["key"]))
        texts = [text * times for text in columns["text"]]
        return {"key": columns["key"], "text": texts, "of": [len(texts)] * len(texts)}


    def longer(row, log="", times=1):
        noted(f"{log}.b", row["key"].partition(".")[0] + "0")
        return {**row, "text": row["text"] * times}
    """


class Twofold:
    """Prepares with two steps that log the record of each call."""

    def __init__(self, project: Any) -> None:
        self.project = project
        self.steps = project.write_steps(STEPS)
        self.log: Path = project.folder / "log"
        self.chain = [self.steps.a, self.steps.b]

    def options(self, **params: Any) -> dict[str, Any]:
        return {"steps": self.chain, "params": {"log": str(self.log), **params}}

    def __call__(self, sources: Any = None, how: Any = None, **params: Any) -> Any:
        for name in "ab":
            self._log(name).unlink(missing_ok=True)
        how = {"splits": {"a": 0.5, "b": 0.5}} | (how or {})
        return self.project.prepare(sources, **self.options(**params), **how)

    def _log(self, name: str) -> Path:
        return Path(f"{self.log}.{name}")

    def calls(self, name: str) -> Counter[int]:
        """File -> how often the last preparation called a step for its records."""
        log = self._log(name)
        return Counter(int(i) // 10 for i in log.read_text().split()) if log.exists() else Counter()

    @property
    def ran(self) -> tuple[set[int], set[int]]:
        """Files of whose records the last preparation put some through a, and through b."""
        return set(self.calls("a")), set(self.calls("b"))

    def as_fresh(self, made: Any, sources: Any = None, how: Any = None, **params: Any) -> bool:
        """Whether all files give the same version, that of what was put aside included."""
        aside = self._aside()
        fresh = self(sources, {**(how or {}), "fresh": True}, **params)
        assert not fresh.reused
        return (fresh.version, self._aside()) == (made.version, aside)

    def _aside(self) -> Any:
        with self.project.stores.meta.read() as meta:
            return meta.find_version("dataset", "data-quarantine")

    def told(self, **params: Any) -> str:
        """What explain says would run."""
        raw = str(self.project.raw)
        options = {**self.options(**params), "key": "id", "splits": {"a": 0.5, "b": 0.5}}
        return explain(self.project.stores, "data", raw, **options).lines()[-1].strip()


@pytest.fixture
def twofold(project: Any) -> Twofold:
    return Twofold(project)


ALL = set(range(20))


@pytest.mark.parametrize(
    ("file", "params", "a", "b", "told"),
    [(True, {}, {7}, {7}, "(1 of 20 inputs)"),
     (False, {"times": 2}, set(), ALL, "(20 inputs) from map project_steps.b"),
     (True, {"times": 2}, {7}, ALL, "(1 of 20 inputs, 19 from map project_steps.b)"),
     (False, {"plus": 1}, ALL, ALL, "(20 inputs)")],
    ids=["a file", "the last step", "both", "the first step"],
)  # fmt: skip
def test_what_changed_runs_alone_and_explain_says_so(
    project: Any, twofold: Twofold, file: bool, params: Any, a: Any, b: Any, told: str
) -> None:
    project.files(20)
    twofold()
    assert (project.ran(), twofold.ran) == (1, (ALL, ALL))
    if file:
        project.write(7, shift=1.0)
    assert twofold.told(**params) == f"part-000.csv to part-019.csv {told}"
    made = twofold(**params)
    assert (project.ran(), twofold.ran) == (1, (a, b))
    assert twofold.as_fresh(made, **params)


def test_each_record_of_the_changed_file_is_given_to_each_step_once(
    project: Any, twofold: Twofold
) -> None:
    project.files(4)
    twofold()
    project.write(2, shift=1.0)
    twofold()
    again = 6  # three records of a sampled unit go through twice
    assert (twofold.calls("a"), twofold.calls("b")) == ({2: 10 + again}, {2: 10 + again})


def test_what_is_kept_after_a_file_ran_alone_is_whole_again(project: Any, twofold: Twofold) -> None:
    project.files(6)
    twofold()
    project.write(1, shift=1.0)
    twofold()
    twofold(times=3)
    assert twofold.ran == (set(), set(range(6)))
    project.write(4, shift=2.0)
    made = twofold(times=3)
    assert twofold.ran == ({4}, {4})
    made = twofold(times=4)
    assert twofold.ran == (set(), set(range(6)))
    assert twofold.as_fresh(made, times=4)


@pytest.mark.parametrize("policy", ["skip", "quarantine"])
def test_new_changed_and_gone_files_with_bad_records_give_the_version_that_all_give(
    project: Any, twofold: Twofold, policy: str
) -> None:
    params = {"bad": 3, "ugly": 5}
    how = {"bad": policy} | ({"bad_share": 0.5} if policy == "skip" else {})
    twofold.chain.insert(1, ("flat_map", twofold.steps.twice))
    twofold.chain.insert(2, ("filter", twofold.steps.odd))
    project.files(8)
    (project.raw / "part-005.csv").write_text("id,x\n50,1\n51,many,2\n53,3\n55,3\n")
    (project.raw / "part-006.csv").write_text("id,x\n")
    twofold(how=how, **params)
    project.write(3, rows=7, shift=1.0)
    project.write(8)
    (project.raw / "part-007.csv").unlink()
    made = twofold(how=how, **params)
    assert twofold.ran == ({3, 8}, {3, 8})
    assert "records are bad" in made.notes[0]
    assert "not 55 either" in json.dumps(project.manifest(made).notes)
    project.write(2, shift=1.0)
    made = twofold(how=how, **params, times=2)
    assert twofold.ran == ({2}, {0, 1, 2, 3, 4, 5, 8})
    assert twofold.as_fresh(made, how=how, **params, times=2)


@pytest.mark.parametrize(
    ("kinds", "gone", "ran"),
    [("list tensor list", None, {2}), ("tensor list tensor", 1, {0, 2}),
     ("png jpeg png", 1, {0, 2})],
)  # fmt: skip
def test_all_run_where_it_was_a_neighbour_that_decided_a_type_of_what_is_kept(
    project: Any, twofold: Twofold, kinds: str, gone: int | None, ran: set[int]
) -> None:
    project.files(3)
    params = {"kinds": kinds.split()}
    twofold(**params)
    project.write(2, shift=1.0)
    if gone is not None:
        (project.raw / f"part-00{gone}.csv").unlink()
    made = twofold(**params)
    assert twofold.ran == (ran, ran)
    assert twofold.as_fresh(made, **params)


@pytest.mark.parametrize("kind", ["text", "huge"])
def test_all_run_where_a_step_in_the_midst_gave_rows_that_are_not_alike(
    project: Any, twofold: Twofold, kind: str
) -> None:
    project.files(4)
    params = {"kinds": ["plain", kind, "plain", "plain"]}
    how = {"bad": "quarantine"}
    twofold(how=how, **params)
    project.write(2, shift=1.0)
    made = twofold(how=how, **params)
    assert twofold.ran == ({0, 1, 2, 3}, {0, 1, 2, 3})
    assert twofold.as_fresh(made, how=how, **params)
    made = twofold(how=how, **params, times=2)
    assert twofold.as_fresh(made, how=how, **params, times=2)


def test_a_batch_behind_a_kept_step_has_rows_of_one_file(project: Any, twofold: Twofold) -> None:
    twofold.chain[1] = ("batch", twofold.steps.sums)
    project.files(5)
    twofold()
    project.write(3, rows=4)
    made = twofold()
    assert twofold.ran == ({3}, {3})
    assert Counter(row["of"] for row in project.all_rows(made)) == {10: 40, 4: 4}
    assert twofold.as_fresh(made)
    made = twofold(times=2)
    assert twofold.ran == (set(), set(range(5)))
    assert twofold.as_fresh(made, times=2)


def test_files_that_are_a_record_each_run_alone_too(
    project: Any, twofold: Twofold, tmp_path: Path
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.txt").write_text(f"text {number}" + " bad" * (number in (4, 9)))
    (folder / "11.txt").write_bytes(b"\xff")
    twofold.chain = [twofold.steps.loud, twofold.steps.longer]
    how = {"key": "key", "bad": "quarantine"}
    twofold(folder, how)
    for number, text in {5: "another", 9: "good", 10: "bad now"}.items():
        (folder / f"{number}.txt").write_text(text)
    made = twofold(folder, how)
    assert twofold.ran == ({5, 9, 10}, {5, 9})
    assert twofold.as_fresh(made, folder, how)
    made = twofold(folder, how, times=2)
    assert twofold.ran == (set(), set(range(12)) - {4, 10, 11})
    assert twofold.as_fresh(made, folder, how, times=2)


def test_what_is_kept_before_a_batch_of_many_files_runs_for_the_changed_one_alone(
    project: Any, twofold: Twofold, tmp_path: Path
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.txt").write_text(f"text {number}" + " bad" * (number in (2, 5)))
    twofold.chain = [twofold.steps.loud, ("batch", twofold.steps.louder)]
    how = {"key": "key", "bad": "quarantine"}
    twofold(folder, how)
    (folder / "3.txt").write_text("another")
    made = twofold(folder, how)
    assert twofold.ran == ({3}, {0, 1, 3, 4, 6, 7})
    assert [row["of"] for row in project.all_rows(made)] == [6] * 6
    assert twofold.as_fresh(made, folder, how)
    twofold.chain[1] = twofold.steps.longer
    (folder / "2.txt").write_bytes(b"\xff")
    made = twofold(folder, how)
    assert twofold.ran == (set(), {0, 1, 3, 4, 6, 7})
    assert twofold.as_fresh(made, folder, how)


def test_what_is_damaged_of_what_was_kept_is_made_again(
    project: Any, twofold: Twofold, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.files(4)
    twofold()
    with project.stores.meta.read() as meta:
        (blob,) = [m.value["blob"] for m in meta.memories("unit") if "mixed" in m.value]
    path = project.stores.blobs.path(blob)
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))
    monkeypatch.setattr(tables, "_verified", set())  # as in another process
    project.write(2, shift=1.0)
    made = twofold()
    assert twofold.ran == ({0, 1, 2, 3}, {0, 1, 2, 3})
    assert twofold.as_fresh(made)


@pytest.mark.faults
def test_killed_between_the_steps_it_goes_on_with_the_changed_files_alone(
    project: Any, twofold: Twofold, in_child: Callable[..., int]
) -> None:
    project.files(12)
    how = {"unit_bytes": 250}
    twofold(how=how)
    assert project.ran() > 2
    project.write(2, shift=1.0)
    project.write(9, shift=1.0)
    Path(f"{twofold.log}.deadly").write_text("94")
    settings = load_settings(home=project.stores.layout.root)
    options = {**twofold.options(), **how, "key": "id", "splits": {"a": 0.5, "b": 0.5}}

    def work() -> object:
        with open_stores(settings) as mine:
            return prepare(mine, "data", str(project.raw), workers=0, **options)

    assert os.waitstatus_to_exitcode(in_child(work)) == -signal.SIGKILL
    assert project.versions() == ["data@1"]
    made = twofold(how=how)
    assert 9 in twofold.ran[1]
    assert all(ran <= {2, 9} for ran in twofold.ran)
    assert twofold.as_fresh(made, how=how)


def test_whatever_changes_the_version_is_the_one_that_all_files_give(
    project: Any, twofold: Twofold, chance: random.Random
) -> None:
    kinds = list(chance.choices(["list", "tensor", "png", "jpeg", "plain", "text"], k=3))
    params: dict[str, Any] = {"kinds": [*kinds, kinds[0], kinds[0]], "bad": chance.randrange(10)}
    how = {"bad": "quarantine", "unit_bytes": chance.choice([None, 250])}
    twofold.chain.insert(1, ("flat_map", twofold.steps.twice))
    project.files(8)
    for turn in range(8):
        made = twofold(how=how, **params)
        if turn % 2:
            assert twofold.as_fresh(made, how=how, **params), (turn, params, how)
        name = chance.choice(["file", "file", "times", "plus", "gone"])
        if name == "gone":
            chance.choice(sorted(project.raw.iterdir())[1:]).unlink()
        elif name == "file":
            project.write(chance.randrange(8), rows=chance.randrange(1, 10), shift=turn + 1.0)
        else:
            params[name] = turn + 2
