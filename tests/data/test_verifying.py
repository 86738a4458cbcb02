"""Verification names what is damaged; statistics and lineage are told; exports appear whole."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.base.errors import BadInput, Conflict, Damaged, NotFound
from penstock.data.ancestry import ancestry
from penstock.data.exporting import export
from penstock.data.manifest import Manifest, read_manifest
from penstock.data.overview import summaries
from penstock.data.preparation import prepare
from penstock.data.references import Reference
from penstock.data.verifying import verify
from penstock.jobs.stores import Stores
from penstock.records import Version
from penstock.records.looks import DataVerdict

SPLITS = {"train": 0.5, "test": 0.5}


def rows(count: int = 40, blob: str = "") -> Any:
    chance = np.random.default_rng(0)
    for i in range(count):
        row = {"id": i, "x": chance.normal(size=4), "label": f"l{i % 3}", "n": i % 5}
        yield {**row, "far": Reference(blob)} if blob else row


@pytest.fixture
def version(stores: Stores) -> Version:
    with stores.meta.write() as meta:
        blob = stores.blobs.put(b"far away")
        meta.refer("run/x", [blob])
    return prepare(stores, "d", rows, params={"blob": blob}, key="id", splits=SPLITS).version


@pytest.fixture
def manifest(stores: Stores, version: Version) -> Manifest:
    return read_manifest(stores.blobs, version.digest)


@pytest.fixture
def spoil(stores: Stores) -> Callable[[str], None]:
    def run(digest: str) -> None:
        path = stores.blobs.path(digest)
        assert path is not None
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)

    return run


# verify


def test_a_whole_version_is_whole_and_every_blob_was_read(
    stores: Stores, version: Version, manifest: Manifest
) -> None:
    told: list[tuple[int, int]] = []
    found = verify(stores.blobs, version, lambda done, total: told.append((done, total)))
    sizes = {digest: stores.blobs.stat(digest).size for digest in manifest.refs}  # type: ignore[union-attr]
    sizes.pop(version.digest)
    assert found == DataVerdict("d@1", True, 1 + len(sizes), sum(sizes.values()))
    assert told[-1] == (sum(sizes.values()),) * 2
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize("part", ["shard", "table", "object", "manifest"])
@pytest.mark.parametrize("how", ["altered", "gone"])
def test_damage_is_named(
    stores: Stores,
    version: Version,
    manifest: Manifest,
    spoil: Callable[[str], None],
    part: str,
    how: str,
) -> None:
    objects = manifest.table("objects")
    assert objects is not None
    digest, where = {
        "shard": (manifest.shards_of("test")[0].digest, "test/0"),
        "table": (manifest.tables["sketches"], "sketches"),
        "object": (objects["digest"][0].as_py(), ""),
        "manifest": (version.digest, ""),
    }[part]
    if how == "altered":
        spoil(digest)
    else:
        stores.blobs.condemn(digest)
        stores.blobs.purge(digest)
    found = verify(stores.blobs, version)
    assert not found.whole
    assert [(d.part, d.where, d.digest) for d in found.damages] == [(part, where, digest)]


def test_all_damages_are_named_at_once(
    stores: Stores, version: Version, manifest: Manifest, spoil: Callable[[str], None]
) -> None:
    for digest in [*manifest.shards.digests(), manifest.tables["objects"]]:
        spoil(digest)
    found = verify(stores.blobs, version)
    assert sorted(d.where for d in found.damages) == ["objects", "test/0", "train/0"]


# statistics


def test_every_column_has_a_summary(stores: Stores, version: Version, manifest: Manifest) -> None:
    by_name = {each.column: each for each in summaries(manifest)}
    assert list(by_name) == ["id", "x", "label", "n", "far"]
    n = by_name["n"]
    assert n.histogram is not None
    assert (n.histogram.low, n.histogram.high, n.histogram.counts) == (-0.5, 4.5, [8.0] * 5)
    x = by_name["x"]
    assert x.histogram is not None
    assert sum(x.histogram.counts) == pytest.approx(160, abs=1)
    assert by_name["label"].top == [("l0", 14), ("l1", 13), ("l2", 13)]
    assert by_name["far"].nulls == 0


def test_long_tails_do_not_hide_the_middle(stores: Stores) -> None:
    def tailed() -> Any:
        return {"id": np.arange(1000), "x": np.r_[np.linspace(0, 1, 995), [1e6] * 5]}

    made = prepare(stores, "t", tailed, key="id", splits={"all": 1}).version
    found = summaries(read_manifest(stores.blobs, made.digest))[1].histogram
    assert found is not None
    assert found.high < 2
    assert sum(each > 0 for each in found.counts) > 20
    assert sum(found.counts) == pytest.approx(1000, abs=2)


def test_a_column_of_one_value_has_one_bar(stores: Stores) -> None:
    def same() -> Any:
        return {
            "id": np.arange(9),
            "x": np.full(9, 2.5),
            "n": np.full(9, 3),
            "e": [None] * 8 + [1.0],
        }

    made = prepare(stores, "s", same, key="id", splits={"all": 1}).version
    _, x, n, e = summaries(read_manifest(stores.blobs, made.digest))
    assert x.histogram is not None
    assert n.histogram is not None
    assert (x.histogram.counts, n.histogram.counts, e.nulls) == ([9.0], [9.0], 8)


# lineage


def test_a_version_tells_its_function_and_parameters(stores: Stores, version: Version) -> None:
    tree = ancestry(stores, "d")
    assert (tree.what, tree.name, tree.facts["rows"]) == ("dataset", "d@1", 40)
    (made,) = tree.sources
    assert (made.what, made.facts["key"]) == ("function", "id")
    assert made.facts["params"]["blob"].startswith("sha256:")
    with pytest.raises(NotFound):
        ancestry(stores, "nobody")


def test_what_a_version_was_made_from_hangs_below_it(stores: Stores, version: Version) -> None:
    with stores.meta.write() as meta:
        made = {"sources": ["d@1:train", "lost@3"]}
        meta.add_version("dataset", "mix", version.digest, "run/run-9", made, [])
    tree = ancestry(stores, "mix@1")
    below = [(each.what, each.name) for each in tree.sources]
    assert below == [
        ("run", "run-9"),
        ("function", tree.sources[1].name),
        ("dataset", "d@1"),
        ("dataset", "lost@3"),
    ]
    assert tree.sources[2].sources[0].what == "function"
    assert tree.sources[3].facts == {"gone": True}


def test_files_and_versions_that_were_read_are_told(stores: Stores, tmp_path: Path) -> None:
    for n in range(13):
        (tmp_path / f"{n:02d}.jsonl").write_text(f'{{"id": {n}, "x": 1}}')
    options: dict[str, Any] = {"key": "id", "splits": {"all": 1}, "workers": 0}
    prepare(stores, "raw", f"{tmp_path}/*.jsonl", **options)
    prepare(stores, "twice", "raw:all", filter=small, **options)
    tree = ancestry(stores, "twice")
    function, raw = tree.sources
    assert (function.what, raw.what, raw.name) == ("function", "dataset", "raw@1")
    files, *inputs = raw.sources
    assert files.what == "files"
    assert [each.name for each in inputs[:10]] == [f"{n:02d}.jsonl" for n in range(10)]
    assert (inputs[10].name, inputs[10].facts["inputs"]) == ("and 3 more", 13)
    assert inputs[0].facts["digest"].startswith("sha256:")


def small(row: dict[str, Any]) -> bool:
    return bool(row["id"] < 10)


# export


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_an_export_holds_every_row(
    stores: Stores, version: Version, tmp_path: Path, format: str
) -> None:
    told: list[tuple[int, int]] = []
    found = export(
        stores, "d", tmp_path / "out", format, on_progress=lambda *each: told.append(each)
    )
    assert (found.reference, found.rows, told[-1]) == ("d@1", 40, (40, 40))
    assert {Path(file).parent.name for file in found.files} == {"train", "test"}
    read = pq.read_table if format == "parquet" else lambda f: pa.ipc.open_file(f).read_all()
    ids = [n for file in found.files for n in read(file)["id"].to_pylist()]
    assert sorted(ids) == list(range(40))
    assert found.bytes == sum(Path(file).stat().st_size for file in found.files)


def test_one_split_goes_into_the_folder_itself(
    stores: Stores, version: Version, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()  # empty is as good as not there
    found = export(stores, "d:test", tmp_path / "out", "jsonl", columns=["id", "label"])
    assert [Path(file).name for file in found.files] == ["part-00000.jsonl"]
    assert Path(found.files[0]).read_text().count("\n") == found.rows


def test_an_export_replaces_nothing_and_leaves_nothing(
    stores: Stores, version: Version, tmp_path: Path, spoil: Callable[[str], None]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Conflict):
        export(stores, "d", tmp_path / "full")
    with pytest.raises(BadInput, match='"x"'):
        export(stores, "d", tmp_path / "out", "csv")
    with pytest.raises(BadInput, match="xlsx"):
        export(stores, "d", tmp_path / "out", "xlsx")
    with pytest.raises(NotFound):
        export(stores, "d", tmp_path / "out", columns=["nope"])
    manifest = read_manifest(stores.blobs, version.digest)
    spoil(manifest.shards_of("test")[0].digest)
    with pytest.raises(Damaged):
        export(stores, "d", tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.faults
def test_an_export_that_is_killed_shows_nothing_and_is_cleaned_up_by_the_next(
    stores: Stores, version: Version, tmp_path: Path, in_child: Callable[..., int]
) -> None:
    from penstock.jobs.stores import open_stores

    settings = stores.settings
    out = tmp_path / "folder" / "out"

    def work() -> None:
        with open_stores(settings) as mine:
            export(mine, "d", out)

    killed = 0
    for line in range(10, 400, 12):
        status = in_child(work, die_at=line, part="exporting.py")
        killed += status == signal.SIGKILL
        if out.exists():  # all of it, also when the kill came right after
            break
    assert killed >= 3
    if not out.exists():
        export(stores, "d", out)
    found = [n for file in out.rglob("*.parquet") for n in pq.read_table(file)["id"].to_pylist()]
    assert sorted(found) == list(range(40))
    with pytest.raises(Conflict):
        export(stores, "d", out)
    export(stores, "d", out.with_name("other"))
    assert sorted(each.name for each in out.parent.iterdir()) == ["other", "out"]
