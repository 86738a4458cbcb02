"""Folders with a layout of their own: LeRobot, Hugging Face datasets; texts and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.base.errors import BadInput, CannotTravel
from penstock.data.formats import open_source
from penstock.data.references import REFERENCE

from .examples import EXAMPLES, read

EPISODES, FRAMES = 3, 5


def frames(first: int, episodes: range) -> pa.Table:
    """Rows as LeRobot writes them: lists of one length, flags, pictures as structs."""
    episode = np.repeat(np.arange(episodes.start, episodes.stop), FRAMES)
    step = np.tile(np.arange(FRAMES), len(episodes))
    image = [{"bytes": b"\xff\xd8" + bytes([i]), "path": f"{i}.png"} for i in range(len(step))]
    return pa.table(
        {
            "action": pa.array([[float(e), float(s)] for e, s in zip(episode, step, strict=True)]),
            "observation.wrist": pa.array(image),
            "timestamp": pa.array(step / 10, pa.float32()),
            "frame_index": step,
            "episode_index": episode,
            "index": np.arange(first, first + len(step)),
            "task_index": episode % 2,
        }
    )


def info(version: str, data: str, video: str) -> dict[str, Any]:
    scalar = {"dtype": "int64", "shape": [1], "names": None}
    return {
        "codebase_version": version,
        "fps": 10,
        "total_episodes": EPISODES,
        "chunks_size": 1000,
        "data_path": data,
        "video_path": video,
        "features": {
            "action": {"dtype": "float32", "shape": [2], "names": None},
            "observation.wrist": {"dtype": "image", "shape": [4, 4, 3], "names": None},
            "observation.front": {"dtype": "video", "shape": [4, 4, 3], "names": None},
            "timestamp": scalar | {"dtype": "float32"},
            **{f"{name}index": scalar for name in ("frame_", "episode_", "", "task_")},
        },
    }


def write_json(path: Path, *values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, values)))


@pytest.fixture(params=["v2.1", "v3.0"])
def lerobot(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root = tmp_path / "pusht"
    tasks = [{"task_index": 0, "task": "push"}, {"task_index": 1, "task": "pull"}]
    if request.param == "v2.1":
        _write_2(root, tasks)
    else:
        _write_3(root, tasks)
    return root


def _write_2(root: Path, tasks: list[dict[str, Any]]) -> None:
    video = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    data = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    write_json(root / "meta/info.json", info("v2.1", data, video))
    write_json(root / "meta/tasks.jsonl", *tasks)
    for i in range(EPISODES):
        path = root / data.format(episode_chunk=0, episode_index=i)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(frames(i * FRAMES, range(i, i + 1)), path)
        path = root / video.format(episode_chunk=0, episode_index=i, video_key="observation.front")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"video%d" % i)


def _write_3(root: Path, tasks: list[dict[str, Any]]) -> None:
    part = "chunk-{chunk_index:03d}/file-{file_index:03d}"
    video = "videos/{video_key}/" + part + ".mp4"
    data = f"data/{part}.parquet"
    write_json(root / "meta/info.json", info("v3.0", data, video))
    pq.write_table(pa.Table.from_pylist(tasks), root / "meta/tasks.parquet")
    at = "videos/observation.front/"
    episodes = [
        {"episode_index": i, at + "chunk_index": 0, at + "file_index": i // 2}
        | {at + "from_timestamp": (i % 2) * 0.5}
        for i in range(EPISODES)
    ]
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(episodes), path)
    for i, ours in enumerate((range(2), range(2, 3))):
        path = root / data.format(chunk_index=0, file_index=i)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(frames(ours.start * FRAMES, ours), path)
        path = root / video.format(chunk_index=0, file_index=i, video_key="observation.front")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"video%d" % i)


def test_a_lerobot_folder_is_frames_with_tasks_and_videos(lerobot: Path) -> None:
    source = open_source(lerobot)
    assert source.format == "lerobot"
    table = read(source).table
    assert table["index"].to_pylist() == list(range(EPISODES * FRAMES))
    assert table["action"].type == pa.fixed_shape_tensor(pa.float64(), [2])
    assert table["observation.wrist"].to_pylist()[1] == b"\xff\xd8\x01"
    assert table["task"].to_pylist()[FRAMES - 1 : FRAMES + 1] == ["push", "pull"]
    assert table["observation.front"].type == REFERENCE
    assert source.meanings == {
        "observation.wrist": "encoded-image",
        "timestamp": "timestamp",
        "episode_index": "episode",
        "index": "key",
        "observation.front": "video",
    }


def test_a_frame_refers_to_its_video_and_the_time_in_it(lerobot: Path) -> None:
    table = read(open_source(lerobot)).table
    shared = "videos/observation.front" in str(table["observation.front"][0])
    last = table.slice(FRAMES * 2 - 1, 1).to_pylist()[0]  # of episode 1
    video = Path(last["observation.front"]["uri"])
    assert video.read_bytes() == (b"video0" if shared else b"video1")
    assert last["observation.front.time"] == pytest.approx(0.4 + (0.5 if shared else 0))


def test_columns_of_a_lerobot_folder_are_chosen(lerobot: Path) -> None:
    table = read(open_source(lerobot, columns=["task", "action", "observation.front"])).table
    assert table.column_names == ["task", "action", "observation.front"]


def test_all_missing_videos_are_named(lerobot: Path) -> None:
    gone = sorted(lerobot.rglob("*.mp4"))
    for path in gone:
        path.unlink()
    with pytest.raises(BadInput) as caught:
        open_source(lerobot).inputs()
    assert caught.value.facts["missing"] == list(map(str, gone))


def test_what_the_meta_files_say_is_part_of_how_it_is_read(lerobot: Path) -> None:
    before = open_source(lerobot).identity
    path = next(each for each in lerobot.glob("meta/tasks*"))
    if path.suffix == ".jsonl":
        path.write_text(path.read_text().replace("push", "shove"))
    else:
        table = pq.read_table(path)
        pq.write_table(table.set_column(1, "task", [["shove", "pull"]]), path)
    assert open_source(lerobot).identity != before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"codebase_version": "v1.6"}, "layout v1.6; 2 and 3 can be read"),
        ({"features": None}, "the meta files of .* cannot be read"),
        ({"video_path": "../../{video_key}"}, "names a file outside"),
    ],
)
def test_meta_files_that_do_not_hold_are_told(
    change: dict[str, Any], said: str, lerobot: Path
) -> None:
    path = lerobot / "meta/info.json"
    write_json(path, json.loads(path.read_text()) | change)
    with pytest.raises(BadInput, match=said):
        open_source(lerobot).inputs()


# Hugging Face


def saved(folder: Path, first: int = 0) -> None:
    """A folder as `save_to_disk` writes it, in two streams."""
    folder.mkdir(parents=True)
    told = _features()
    names = [f"data-{i:05d}-of-00002.arrow" for i in range(2)]
    for i, name in enumerate(names):
        ids = [first + 2 * i, first + 2 * i + 1]
        picture = [{"bytes": b"\xff\xd8", "path": None}] * 2
        columns = {"id": ids, "m": [[[1, 2], [3, 4]]] * 2, "label": [0, 1], "picture": picture}
        table = pa.table(columns).replace_schema_metadata(told)
        with pa.ipc.new_stream(folder / name, table.schema) as out:
            out.write_table(table)
    write_json(folder / "state.json", {"_data_files": [{"filename": name} for name in names]})
    write_json(folder / "dataset_info.json", {})


def _features() -> dict[str, str]:
    features = {
        "id": {"dtype": "int64", "_type": "Value"},
        "m": {"shape": [2, 2], "dtype": "int64", "_type": "Array2D"},
        "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
        "picture": {"_type": "Image"},
    }
    return {"huggingface": json.dumps({"info": {"features": features}})}


def test_a_saved_hugging_face_dataset_is_read_without_the_package(tmp_path: Path) -> None:
    saved(tmp_path / "one")
    source = open_source(tmp_path / "one")
    table = read(source).table
    assert table["id"].to_pylist() == [0, 1, 2, 3]
    assert table["m"].type == pa.fixed_shape_tensor(pa.int64(), [2, 2])
    assert table["picture"].to_pylist() == [b"\xff\xd8"] * 4
    assert source.meanings == {"label": "category", "picture": "encoded-image"}
    assert b'"names":["no","yes"]' in table.schema.field("label").metadata[b"penstock.options"]


def test_splits_of_a_saved_dataset_are_chosen_by_name(tmp_path: Path) -> None:
    saved(tmp_path / "all/train")
    saved(tmp_path / "all/test", first=10)
    write_json(tmp_path / "all/dataset_dict.json", {"splits": ["train", "test"]})
    everything = open_source(tmp_path / "all")
    assert everything.inputs()[0].name == "test/data-00000-of-00002.arrow"
    assert read(everything).table.num_rows == 8
    assert read(open_source(tmp_path / "all", split="test")).table["id"].to_pylist()[0] == 10
    with pytest.raises(BadInput, match='Did you mean "train"'):
        open_source(tmp_path / "all", split="trian").inputs()


def test_a_saved_selection_of_rows_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "one")
    state = json.loads((tmp_path / "one/state.json").read_text())
    write_json(tmp_path / "one/state.json", state | {"_indices_data_files": [{"filename": "i"}]})
    with pytest.raises(BadInput, match="selection of rows"):
        open_source(tmp_path / "one").inputs()


def test_a_state_that_names_files_elsewhere_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "one")
    write_json(tmp_path / "one/state.json", {"_data_files": [{"filename": "../x.arrow"}]})
    with pytest.raises(BadInput, match="outside of its folder"):
        open_source(tmp_path / "one").inputs()


@pytest.mark.interop
def test_a_dataset_object_is_read_from_memory_or_from_its_files() -> None:
    datasets = pytest.importorskip("datasets")
    given = datasets.Dataset.from_dict({"id": list(range(10)), "t": ["x"] * 10})
    source = open_source(given)
    blocks = list(source.read(source.inputs()[0]))
    assert pa.concat_tables(each.table for each in blocks)["id"].to_pylist() == list(range(10))  # type: ignore[union-attr]
    with pytest.raises(CannotTravel, match="memory"):
        source.spec()


@pytest.mark.interop
def test_what_the_library_itself_saved_is_read_with_its_meanings(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"id": datasets.Value("int64"), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    rows = {"id": list(range(10)), "label": [i % 2 for i in range(10)]}
    saved = datasets.Dataset.from_dict(rows, features=features)
    saved.save_to_disk(tmp_path / "one", num_shards=2)
    source = open_source(tmp_path / "one")
    assert len(source.inputs()) == 2 and read(source).table.to_pydict() == rows
    assert source.meanings["label"] == "category"
    datasets.DatasetDict(train=saved, test=saved.select([7, 3])).save_to_disk(tmp_path / "both")
    test = read(open_source(tmp_path / "both", split="test")).table
    assert test["id"].to_pylist() == [7, 3]
    again = open_source(datasets.load_from_disk(tmp_path / "one"))
    assert read(again).table.to_pydict() == rows  # from its files, so that it travels


# texts and pictures


def test_texts_that_are_not_utf8_are_bad_records_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 'ü'\n")
    (tmp_path / "b.py").write_bytes(b"# coding: latin-1\nx = '\xfc'\n")
    (tmp_path / "empty.py").write_text("")
    got = read(open_source(tmp_path / "*.py"))
    assert got.table.to_pylist()[-1] == {"key": "empty.py", "text": ""}
    assert [each.place for each in got.bad] == ["b.py:2"]
    assert got.bad[0].raw is not None
    assert read(open_source(tmp_path, encoding="latin-1")).table.num_rows == 3
    with pytest.raises(BadInput, match='no encoding "latin-0"'):
        open_source(tmp_path, encoding="latin-0")


def test_a_label_is_the_name_of_the_folder_and_a_key_the_path(tmp_path: Path) -> None:
    example = EXAMPLES["images"](tmp_path)
    source = example.open()
    table = read(source).table
    assert table["key"].to_pylist()[:2] == ["cat/01.jpg", "cat/03.jpg"]
    assert table["label"].to_pylist() == ["cat"] * 10 + ["dog"] * 10
    assert table["image"].to_pylist()[0] == (example.path / "cat/01.jpg").read_bytes()
    assert source.meanings == {"key": "key", "image": "encoded-image", "label": "category"}
    assert "label" not in read(open_source(example.path / "cat")).table.column_names


def test_small_files_share_blocks(tmp_path: Path) -> None:
    source = EXAMPLES["text"](tmp_path).open()
    got = read(source)
    assert len(got.tables) == 1
    assert got.places == ["29.txt"]
