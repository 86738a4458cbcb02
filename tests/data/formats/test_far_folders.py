"""Folders with a layout of their own are read in an object store as on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.base.errors import BadInput
from penstock.blobs.remote.address import parse
from penstock.blobs.remote.client import Client
from penstock.data.formats import open_source
from penstock.data.references import Reference

from .examples import read
from .test_folders import lerobot, saved, write_json  # noqa: F401 - a fixture

pytestmark = pytest.mark.s3
Place = Callable[[Path], str]


@pytest.fixture
def away(moto: str, bucket: str) -> Place:
    """`away(folder)`: uploads what is in it; its URL."""
    options = f"?endpoint={moto}&region=us-east-1"
    client = Client(parse(f"s3://{bucket}{options}"))

    def put(folder: Path) -> str:
        for path in folder.rglob("*"):
            if path.is_file():
                key = path.relative_to(folder.parent).as_posix()
                client.overwrite(key, memoryview(path.read_bytes()))
        return f"s3://{bucket}/{folder.name}{options}"

    return put


def alike(near: Any, far: Any) -> tuple[Any, Any]:
    """Both tables, once all else is the same."""
    assert far.format == near.format
    one, other = near.inputs(), far.inputs()
    assert [each.name for each in other] == [each.name for each in one]
    assert [far.digest(each) for each in other] == [near.digest(each) for each in one]
    assert far.meanings == near.meanings
    wanted, found = read(near), read(far)
    assert (found.places, found.bad) == (wanted.places, [])
    return wanted.table, found.table


def test_a_lerobot_dataset_is_read_where_it_lies(lerobot: Path, away: Place) -> None:  # noqa: F811
    url = away(lerobot)
    near, far = open_source(lerobot), open_source(url)
    wanted, found = alike(near, far)
    assert far.how() == near.how()
    video = "observation.front"
    assert found.drop_columns(video).equals(wanted.drop_columns(video))
    for here, there in zip(wanted[video].to_pylist(), found[video].to_pylist(), strict=True):
        assert there["uri"].startswith("s3://")
        assert Reference(there["uri"]).read() == Path(here["uri"]).read_bytes()


def test_videos_that_are_not_there_are_named(lerobot: Path, away: Place) -> None:  # noqa: F811
    for path in lerobot.rglob("*.mp4"):
        path.unlink()
    with pytest.raises(BadInput, match=r"videos of s3://.* are not there") as caught:
        open_source(away(lerobot)).inputs()
    assert all(each.startswith("s3://") for each in caught.value.facts["missing"])


def test_a_saved_hugging_face_dataset_is_read_where_it_lies(tmp_path: Path, away: Place) -> None:
    root = tmp_path / "all"
    saved(root / "train")
    saved(root / "test", first=10)
    write_json(root / "dataset_dict.json", {"splits": ["train", "test"]})
    url = away(root)
    wanted, found = alike(open_source(root), open_source(url))
    assert found.equals(wanted) and found.num_rows == 8
    far = open_source(url, split="test", columns=["id"])
    assert read(far).table["id"].to_pylist() == [10, 11, 12, 13]
    with pytest.raises(BadInput, match='Did you mean "train"'):
        open_source(url, split="trian").inputs()
    (one,) = [each for each in root.iterdir() if each.name == "train"]
    assert open_source(url.replace("/all", "/all/train")).format == open_source(one).format


@pytest.mark.parametrize("version", [2, 3])
def test_a_zarr_store_is_read_where_it_lies(version: Any, tmp_path: Path, away: Place) -> None:
    import zarr

    path = tmp_path / "replay.zarr"
    root = zarr.open_group(str(path), mode="w", zarr_format=version)
    data = root.create_group("data")
    data.create_array("id", shape=(120,), dtype="i8", chunks=(50,))[:] = np.arange(120)
    data.create_array("gap", shape=(120, 2), dtype="f4", chunks=(50, 2), fill_value=7.0)[:40] = 1.0
    url = away(path)
    wanted, found = alike(
        open_source(path, group="data", piece_bytes=500),
        open_source(url, group="data", piece_bytes=500),
    )
    assert found.equals(wanted) and found.num_rows == 120
    assert found["gap"].to_pylist()[-1] == [7.0, 7.0]  # a chunk that is not there


def test_a_zarr_store_that_changes_is_told(tmp_path: Path, away: Place) -> None:
    import zarr

    path = tmp_path / "rows.zarr"
    root = zarr.open_group(str(path), mode="w")
    array = root.create_array("id", shape=(10,), dtype="i8", chunks=(5,))
    array[:] = np.arange(10)
    source = open_source(away(path))
    (input,) = source.inputs()
    array[:] = np.arange(10) + 1
    away(path)
    with pytest.raises(BadInput, match="changed while it was read"):
        read(source, [input])


def test_what_is_no_folder_of_its_format_is_told(tmp_path: Path, away: Place) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.json").write_text(json.dumps({}))
    url = away(tmp_path / "plain")
    for format, said in (
        ("lerobot", "no LeRobot dataset"),
        ("huggingface", "no folder that save_to_disk wrote"),
        ("zarr", "no Zarr store"),
    ):
        with pytest.raises(BadInput, match=said):
            open_source(url, format=format).inputs()
