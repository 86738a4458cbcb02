"""Small files share units, and one that changed runs alone: the version is the one that all of them
give when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.data.preparation import explain, tables

STEPS = """
    def told(row, log=""):
        with open(log, "a") as file:
            file.write(f"{row['id'] // 10}\\n")
        return row


    def parts(row, log=""):
        told(row, log)
        for part in range(row["id"] % 3):
            yield {"id": f"{row['id']}-{part}", "x": row["x"]}


    def odd(row, log=""):
        told(row, log)
        return row["id"] % 2


    def picky(row, log=""):
        told(row, log)
        if row["id"] % 10 == 3:
            raise ValueError(f"no threes: {row['id']}")
        return row


    def halves(columns):
        return {name: values[::2] for name, values in columns.items()}


    def late(row, log=""):
        told(row, log)
        return {"id": row["id"], "note": "late" if row["id"] > 150 else None}


    PNG, JPEG = b"\\x89PNG\\r\\n\\x1a\\n0000", b"\\xff\\xd8\\xff000000000"
    VALUES = {"list": [[1], [1, 2]], "tensor": [[1, 2]], "png": [PNG], "jpeg": [JPEG]}


    def typed(row, log="", kinds=()):
        told(row, log)
        values = VALUES[kinds[row["id"] // 10]]
        return {"id": row["id"], "value": values[row["id"] % len(values)]}


    def louder(columns, log=""):
        with open(log, "a") as file:
            file.write("".join(f"{key.partition('.')[0]}\\n" for key in columns["key"]))
        return columns


    def loud(row, log=""):
        with open(log, "a") as file:
            file.write(f"{row['key'].partition('.')[0]}\\n")
        if "bad" in row["text"]:
            raise ValueError("bad text")
        return {**row, "text": row["text"].upper()}
    """


class Once:
    """Prepares with a step that logs the file of each record that it was called for."""

    def __init__(self, project: Any) -> None:
        self.project = project
        self.steps = project.write_steps(STEPS)
        self.log: Path = project.folder / "log"

    def __call__(self, sources: Any = None, **options: Any) -> Any:
        self.log.unlink(missing_ok=True)
        options = {"splits": {"a": 0.5, "b": 0.5}, "params": {"log": str(self.log)}} | options
        return self.project.prepare(sources, **options)

    def ran(self) -> set[int]:
        """Numbers of the files that the last preparation put through its step."""
        return set(map(int, self.log.read_text().split())) if self.log.exists() else set()

    def as_fresh(self, made: Any, sources: Any = None, **options: Any) -> bool:
        """Whether all files give the same version, that of what was put aside included."""
        aside = self._aside()
        fresh = self(sources, fresh=True, **options)
        assert not fresh.reused
        return (fresh.version, self._aside()) == (made.version, aside)

    def _aside(self) -> Any:
        with self.project.stores.meta.read() as meta:
            return meta.find_version("dataset", "data-quarantine")


@pytest.fixture
def once(project: Any) -> Once:
    return Once(project)


def test_one_changed_file_of_forty_runs_alone(project: Any, once: Once) -> None:
    project.files(40)
    once(map=once.steps.told)
    assert (project.ran(), len(once.ran())) == (1, 40)
    project.write(17, shift=1.0)
    made = once(map=once.steps.told)
    assert (project.ran(), once.ran()) == (1, {17})
    assert once.as_fresh(made, map=once.steps.told)


@pytest.mark.parametrize(
    "options",
    [{"flat_map": "parts", "filter": "odd", "dedupe": "x"}, {"batch": "halves", "map": "told"},
     {"map": "picky", "bad": "quarantine"}],
    ids=["several rows or none of a record", "batches", "bad records"],
)  # fmt: skip
def test_new_changed_and_gone_files_give_the_version_that_all_give(
    project: Any, once: Once, options: dict[str, Any]
) -> None:
    options = {k: getattr(once.steps, str(v), v) for k, v in options.items()}
    project.files(12)
    if "bad" in options:
        (project.raw / "part-005.csv").write_text("id,x\n50,1\n51,many,2\n52,3\n")
    (project.raw / "part-007.csv").write_text("id,x\n")
    once(**options)
    project.write(3, rows=7, shift=1.0)
    project.write(12)
    (project.raw / "part-008.csv").unlink()
    once(**options)
    assert once.ran() == {3, 12}
    (project.raw / "part-000.csv").unlink()
    made = once(**options)
    assert once.ran() == {1}, "the first of a unit says the order of the columns"
    assert once.as_fresh(made, **options)


def test_a_file_that_is_a_record_runs_alone_too(project: Any, once: Once, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.txt").write_text(f"text {number}" + " bad" * (number in (4, 20)))
    (folder / "11.txt").write_bytes(b"\xff")
    options = {"map": once.steps.loud, "key": "key", "bad": "quarantine"}
    once(folder, **options)
    (folder / "5.txt").write_text("another")
    (folder / "20.txt").write_text("good")
    (folder / "21.txt").write_text("bad now")
    made = once(folder, **options)
    assert (project.ran(), once.ran()) == (1, {5, 20, 21})
    assert made.notes[0].startswith("3 of 30 records are bad and were put aside: 11.txt:1")
    assert once.as_fresh(made, folder, **options)


def test_gaps_that_other_units_fill_stay_known(project: Any, once: Once) -> None:
    project.files(20)
    options = {"map": once.steps.late, "unit_bytes": 250}
    once(**options)
    assert project.ran() > 2
    project.write(4, shift=1.0, rows=9)
    made = once(**options)
    assert (project.ran(), once.ran()) == (1, {4})
    assert once.as_fresh(made, **options)


@pytest.mark.parametrize(
    ("kinds", "gone", "ran"),
    [("list tensor list", None, {2}), ("tensor list tensor", 1, {0, 2}),
     ("png jpeg png", 1, {0, 2})],
)  # fmt: skip
def test_all_run_where_it_was_a_neighbour_that_decided_a_type(
    project: Any, once: Once, kinds: str, gone: int | None, ran: set[int]
) -> None:
    project.files(3)
    params = {"log": str(once.log), "kinds": kinds.split()}
    options = {"map": once.steps.typed, "params": params}
    once(**options)
    project.write(2, shift=1.0)
    if gone is not None:
        (project.raw / f"part-00{gone}.csv").unlink()
    made = once(**options)
    assert once.ran() == ran
    assert once.as_fresh(made, **options)


def test_a_batch_of_many_files_runs_as_a_whole(project: Any, once: Once, tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text("text")
    options = {"batch": once.steps.louder, "key": "key"}
    once(tmp_path / "*.txt", **options)
    (tmp_path / "1.txt").write_text("another")
    found = explain(project.stores, "data", str(tmp_path / "*.txt"), **options)
    assert found.lines()[-1] == "  0.txt to 3.txt (4 inputs)"
    once(tmp_path / "*.txt", **options)
    assert once.ran() == {0, 1, 2, 3}


def test_what_is_damaged_of_a_neighbour_is_made_again(
    project: Any, once: Once, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.files(4)
    once(map=once.steps.told)
    with project.stores.meta.read() as meta:
        (blob,) = [m.value["blob"] for m in meta.memories("unit") if "shares" in m.value]
    path = project.stores.blobs.path(blob)
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))
    monkeypatch.setattr(tables, "_verified", set())  # as in another process
    project.write(2, shift=1.0)
    made = once(map=once.steps.told)
    assert once.ran() == {0, 1, 2, 3}
    assert once.as_fresh(made, map=once.steps.told)


def test_explain_counts_the_files_that_would_run(project: Any) -> None:
    project.files(4)
    options = {"map": project.steps.double, "key": "id"}
    project.prepare(map=project.steps.double)
    project.write(2, shift=1.0)
    found = explain(project.stores, "data", str(project.raw), **options)
    assert found.lines()[-1] == "  part-000.csv to part-003.csv (1 of 4 inputs)"
