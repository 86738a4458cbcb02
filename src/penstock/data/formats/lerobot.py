"""LeRobot dataset folders, layouts 2.x and 3.x: Parquet and JSON, read without the package.

    meta/info.json            version, features, templates of paths
    meta/tasks.jsonl|parquet  what the robot was told
    data/**/*.parquet         rows: one frame of one episode each
    videos/**/*.mp4           stay where they are: a frame refers to its file and the time in it
    meta/episodes/**/*.parquet (3.x)  where in shared videos an episode begins

Rows are the frames in the order of the files. To the file's columns come `task` (text) and, for
each video NAME, NAME (a reference to the whole file) and `NAME.time` (seconds in it, float64).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.base.errors import BadInput
from penstock.data.formats.base import meant
from penstock.data.formats.files import File, digest_whole
from penstock.data.formats.folders import Folder
from penstock.data.formats.parquet import ParquetSource
from penstock.data.references import REFERENCE

_INFO = "meta/info.json"
_Videos = dict[str, dict[int, tuple[str, float]]]  # of each video, by episode: file, where in it
_MEANINGS = {"episode_index": "episode", "timestamp": "timestamp", "index": "key"}


def is_folder(folder: Folder) -> bool:
    """Whether it is a LeRobot dataset."""
    return folder.has(_INFO) and b"codebase_version" in folder.read(_INFO)


class LeRobotSource(ParquetSource):
    """`open_source("pusht")`; windows go by `episode_index` and `timestamp`."""

    format = "lerobot"

    @cached_property
    def layout(self) -> Layout:
        """What the folder's meta files say; read once."""
        root = Folder.of(self.given)
        if root is None or not is_folder(root):
            raise BadInput(
                f"{self.given} is no LeRobot dataset ({_INFO} with its version is not there)",
                "Give the dataset's own folder.",
            )
        return read_layout(root)

    def files(self) -> list[File]:
        root = self.layout.root
        found = [
            File(f"data/{each.name}", each.uri, each.size, each.stamp)
            for each in root.files("data")
            if each.name.endswith(".parquet")
        ]
        self.layout.check_videos()
        return found

    def how(self) -> dict[str, Any]:
        return super().how() | {"meta": self.layout.digests}

    def settle(self, found: pa.Schema) -> pa.Schema:
        fields = [self.layout.field(each) for each in found]
        fields += [each for each in self.layout.added if each.name not in found.names]
        return super().settle(pa.schema(fields))

    def stored(self) -> list[str]:
        """The columns that the Parquet files themselves have, which the others follow from."""
        added = {each.name for each in self.layout.added}
        wanted = [name for name in self.schema.names if name not in added]
        needed = ("task_index", "episode_index", "timestamp")
        return wanted + [name for name in needed if name not in wanted]

    def chosen(self, schema: pa.Schema) -> pa.Schema:
        return schema

    def fit(self, table: pa.Table, where: Callable[[], str]) -> pa.Table:
        return super().fit(self.layout.extend(table), where)


@dataclass(frozen=True)
class Layout:
    """root; info as in info.json; tasks by index; per video and episode its file and start."""

    root: Folder
    info: dict[str, Any]
    tasks: dict[int, str]
    videos: _Videos
    digests: dict[str, str]

    @property
    def added(self) -> list[pa.Field]:
        """The columns that are not in the Parquet files."""
        found = [pa.field("task", pa.string())] if self.tasks else []
        for name in self.videos:
            found += [meant(name, REFERENCE, "video"), pa.field(f"{name}.time", pa.float64())]
        return found

    def field(self, found: pa.Field) -> pa.Field:
        """A column of the files in the shape that its feature tells."""
        told = self.info["features"].get(found.name) or {}
        shape = [int(each) for each in told.get("shape") or ()]
        if told.get("dtype") == "image":
            return meant(found.name, pa.binary(), "encoded-image")
        value = found.type
        while pa.types.is_list(value) or pa.types.is_fixed_size_list(value):
            value = value.value_type
        if value != found.type and shape:
            return pa.field(found.name, pa.fixed_shape_tensor(value, shape))
        return meant(found.name, found.type, _MEANINGS.get(found.name, ""))

    def extend(self, table: pa.Table) -> pa.Table:
        """A table of frames with tasks and videos."""
        if self.tasks and "task_index" in table.column_names:
            texts = [self.tasks.get(each) for each in table["task_index"].to_pylist()]
            table = table.append_column("task", pa.array(texts, pa.string()))
        if not self.videos:
            return table
        episodes = table["episode_index"].to_pylist()
        times = np.asarray(table["timestamp"].to_numpy(), np.float64)
        for name, places in self.videos.items():
            uris = {each: self.root.uri(places[each][0]) for each in set(episodes)}
            files = [{"uri": uris[e], "start": 0, "length": None} for e in episodes]
            starts = np.array([places[e][1] for e in episodes], np.float64)
            table = table.append_column(name, pa.array(files, REFERENCE))
            table = table.append_column(f"{name}.time", pa.array(starts + times))
        return table

    def check_videos(self) -> None:
        """Raise BadInput that names every video file that is not there."""
        missing = self.root.missing(
            {name for places in self.videos.values() for name, _ in places.values()}
        )
        if missing:
            shown = "\n  ".join(missing[:20])
            raise BadInput(
                f"{len(missing)} videos of {self.root} are not there:\n  {shown}",
                "Download the dataset with its videos.",
                missing=missing,
            )


def read_layout(root: Folder) -> Layout:
    """The meta files of a LeRobot dataset. Raises BadInput."""
    try:
        info = json.loads(root.read(_INFO))
        version = int(str(info["codebase_version"]).lstrip("v").split(".")[0])
        if version not in (2, 3):
            raise BadInput(
                f"{root} has LeRobot's layout {info['codebase_version']}; 2 and 3 can be read",
                "Convert it with LeRobot's own script.",
            )
        tasks = _tasks(root, version)
        videos = (_videos_2 if version == 2 else _videos_3)(root, info)
    except (OSError, LookupError, ValueError, TypeError, AttributeError, StopIteration) as error:
        raise BadInput(
            f"the meta files of {root} cannot be read: {type(error).__name__}: {error}",
            "Download the folder again.",
            path=str(root),
        ) from None
    digests = {
        f"meta/{each.name}": digest_whole(each.whole())
        for each in root.files("meta")
        if each.name.rpartition("/")[2].startswith(("info", "tasks", "episodes.", "file-"))
    }
    return Layout(root, info, tasks, videos, digests)


def _tasks(root: Folder, version: int) -> dict[int, str]:
    if version == 2:
        lines = root.read("meta/tasks.jsonl").decode().splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
        return {int(row["task_index"]): str(row["task"]) for row in rows}
    table = pq.read_table(pa.BufferReader(root.read("meta/tasks.parquet")))
    text = next(name for name in table.column_names if name != "task_index")
    numbers, texts = table["task_index"].to_pylist(), table[text].to_pylist()
    return dict(zip(numbers, texts, strict=True))


def _video_names(info: dict[str, Any]) -> list[str]:
    return [name for name, told in info["features"].items() if told.get("dtype") == "video"]


def _inside(root: Folder, name: str) -> str:
    """A name of a template, which must not leave the dataset."""
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise BadInput(f"{root}/{_INFO} names a file outside of the dataset: {name}", "")
    return name


def _videos_2(root: Folder, info: dict[str, Any]) -> _Videos:
    found: _Videos = {}
    for name in _video_names(info):
        found[name] = {}
        for episode in range(int(info["total_episodes"])):
            chunk = episode // int(info["chunks_size"])
            path = info["video_path"].format(
                video_key=name, episode_chunk=chunk, episode_index=episode
            )
            found[name][episode] = (_inside(root, path), 0.0)
    return found


def _videos_3(root: Folder, info: dict[str, Any]) -> _Videos:
    names = _video_names(info)
    found: _Videos = {name: {} for name in names}
    for file in root.files("meta/episodes") if names else ():
        for row in _episodes(root.read(f"meta/episodes/{file.name}"), names):
            for name in names:
                at = f"videos/{name}/"
                path = info["video_path"].format(
                    video_key=name,
                    chunk_index=row[at + "chunk_index"],
                    file_index=row[at + "file_index"],
                )
                start = float(row[at + "from_timestamp"])
                found[name][int(row["episode_index"])] = (_inside(root, path), start)
    return found


def _episodes(data: bytes, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    parts = ("chunk_index", "file_index", "from_timestamp")
    columns = [f"videos/{name}/{part}" for name in names for part in parts]
    yield from pq.read_table(pa.BufferReader(data), columns=["episode_index", *columns]).to_pylist()
