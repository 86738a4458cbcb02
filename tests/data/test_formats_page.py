"""docs/formats.md: a version is read as the page says, with json and pyarrow alone."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.base.layout import Layout
from penstock.base.settings import load_settings
from penstock.blobs import open_blobs
from penstock.data import Manifest, ShardSource, prepare, read_manifest, read_split
from penstock.data.cache import form
from penstock.data.cache.counters import ROW
from penstock.jobs.stores import open_stores

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".penstock"


@pytest.mark.parametrize("shown", [["id", "name"], ["id", "image", "odd", "mask", "name"]])
def test_a_version_is_read_without_penstock(make: Any, home: Path, shown: list[str]) -> None:
    blobs = open_blobs(f"file://{home}/blobs")
    rows = read_split(blobs, make(blobs, rows=100), "all").select(shown)
    data = make(blobs, rows, shard_rows=30, splits={"b": 0.6, "a": 0.4})
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found: list[pa.Table] = []
    code = code.replace("digest_of_the_version", repr(data.digest)) + "    found.append(rows)\n"
    exec(code, {"found": found})  # the page's own code
    wanted = pa.concat_tables([read_split(blobs, data, split) for split in data.splits])
    assert pa.concat_tables(found).equals(wanted)


def test_the_page_names_every_field_and_column(make: Any, home: Path) -> None:
    blobs = open_blobs(f"file://{home}/blobs")
    data: Manifest = make(blobs)
    stored = json.loads(blobs.get(data.digest))
    names = [*stored, *stored["columns"][0], *stored["splits"][0], *stored["lineage"]]
    for table in stored["tables"].values():
        names += pa.ipc.open_file(blobs.get(table)).schema.names
    assert [name for name in names if f"`{name}`" not in PAGE] == []
    assert set(stored["tables"]) <= set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))


def test_a_version_made_of_files_is_on_the_page_with_all_its_notes(home: Path) -> None:
    Path("raw.jsonl").write_text("".join(f'{{"id": {i}, "x": {i}}}\n' for i in range(50)) + "{\n")
    things = "[columns.x]\nrange = { least = 3, severity = 'quarantine' }\n"
    Path("things.toml").write_text(things)
    draw = np.random.default_rng()
    with open_stores(load_settings(home=home, environment={})) as stores:
        made = prepare(
            stores, "things", "raw.jsonl", map=lambda row: {**row, "y": draw.random()},
            key=lambda row: f"{row['id']} {draw.random()}", bad="quarantine", workers=0,
            splits={"all": 1}, sort="y", expect="things.toml",
        )  # fmt: skip
        data = read_manifest(stores.blobs, made.version.digest)
        rows = read_split(stores.blobs, data, "all")
        tables = [data.table(name) for name in data.tables]
    notes = data.notes
    owners = {"steps", "rule", "options", "units", "inputs", "records"}
    assert set(notes) == owners | {"expectations", "quarantine", "unstable", "unstable_calls"}
    names = [*notes, *data.checks, *(name for t in tables if t for name in t.schema.names)]
    for owner in ("rule", "options", "records", "expectations", "quarantine"):
        names += notes[owner]
    names += [*notes["steps"][0], *notes["records"]["first"][0]]
    assert [name for name in names if f"`{name}`" not in PAGE] == []
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found: list[pa.Table] = []
    code = code.replace("digest_of_the_version", repr(data.digest)) + "    found.append(rows)\n"
    exec(code, {"found": found})  # the page's own code
    assert pa.concat_tables(found).equals(rows)
    assert rows.num_rows == 47


def test_a_blob_lies_under_its_hash(make: Any, home: Path) -> None:
    blobs = open_blobs(f"file://{home}/blobs")
    for digest in make(blobs).refs:
        data = (home / "blobs" / digest[7:9] / digest[9:]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest[7:]


def test_the_caches_files_are_as_the_page_says(make: Any, home: Path) -> None:
    blobs = open_blobs(f"file://{home}/blobs")
    data = make(blobs, {"id": list(range(100))})
    source = ShardSource(blobs, Layout(home), data, "all")
    source.gather(source._ends[:0])
    source.gather(source._ends - 1)
    source.close()
    folder = home / "cache" / "shards" / "v2"
    found = {path.name for path in folder.iterdir()}
    assert found == {f"{data.shards[0].digest[7:]}.arrow", "building", "verified", "counters",
                     "locks"}  # fmt: skip
    body = next(folder.glob("*.arrow")).read_bytes()[: -form.TRAILER.size]
    assert pa.ipc.open_file(body).read_all()["id"].to_pylist() == list(range(100))
    assert f"`{form.MARK.decode()}`" in PAGE
    assert (folder / "counters").stat().st_size == 8 * ROW
