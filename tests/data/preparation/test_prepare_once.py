"""Work that a preparation does once, and work that it leaves out, counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock.data.formats import files, small
from penstock.data.preparation import finishing


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02d}.txt").write_text(f"text {number}")
    return folder


def test_a_small_file_is_read_once_to_be_hashed_and_prepared(
    project: Any, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: Counter[str] = Counter()

    def counting(uri: str, *given: Any, **named: Any) -> Any:
        opened[uri] += 1
        return real(uri, *given, **named)

    real = files.open_bytes
    monkeypatch.setattr(files, "open_bytes", counting)
    made = project.prepare(texts, key="key", splits={"all": 1})
    assert len(project.all_rows(made)) == 30
    assert sorted(opened.values()) == [1] * 30


def test_rows_that_a_step_takes_first_make_no_table(
    project: Any, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = []

    def counting(*given: Any, **named: Any) -> Any:
        tables.append(given)
        return pa.table(*given, **named)

    class Arrow:
        table = staticmethod(counting)

        def __getattr__(self, name: str) -> Any:
            return getattr(pa, name)

    monkeypatch.setattr(small, "pa", Arrow())
    project.write_steps("def shout(row):\n    return {**row, 'text': row['text'].upper()}\n")
    made = project.prepare(
        texts, name="loud", key="key", map=project.steps.shout, splits={"all": 1}
    )
    assert {row["text"] for row in project.all_rows(made)} == {f"TEXT {n}" for n in range(30)}
    assert len(tables) == 1  # of the few records whose second run is compared with the first
    made = project.prepare(texts, name="as-they-are", key="key", splits={"all": 1})
    assert {row["text"] for row in project.all_rows(made)} == {f"text {n}" for n in range(30)}


def test_without_dedupe_only_keys_are_kept_to_be_compared(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    put_run = finishing.put_run
    monkeypatch.setattr(finishing, "put_run", lambda *given: runs.append(1) or put_run(*given))
    project.files(1)
    project.prepare(splits={"all": 1})
    assert len(runs) == 1
    project.prepare(dedupe="x", splits={"all": 1})
    assert len(runs) == 3
