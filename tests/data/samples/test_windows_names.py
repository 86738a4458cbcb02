"""Windows find the columns of episodes and times by their types, else by their usual names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from penstock.base.errors import BadInput, NotFound
from penstock.base.hashing import digest_json
from penstock.data.samples import Stream, Windows, over, spec_from_json, spec_to_json
from penstock.data.samples.windowing import FORMAT


def meaning(source: Any, **columns: str | tuple[str, dict[str, Any]]) -> Any:
    """The source with semantic types: column -> meaning, or (meaning, options)."""
    told = {k: v if isinstance(v, tuple) else (v, {}) for k, v in columns.items()}
    source.columns = [
        replace(c, meaning=told[c.name][0], options=told[c.name][1]) if c.name in told else c
        for c in source.columns
    ]
    return source


def drives(memory: Any, scale: float = 1.0, **more: Any) -> Any:
    data = {"drive": ["a", "a", "b"], "clock": np.array([0, 1, 0]) * scale, "x": np.arange(3)}
    return memory(data | more)


def every(source: Any) -> dict[str, Any]:
    return source.gather(np.arange(len(source)))


def test_columns_are_found_by_what_they_mean(memory: Any) -> None:
    made = meaning(drives(memory), drive="episode", clock="timestamp")
    got = every(over(Windows(history=2), made))
    assert got["x"].tolist() == [[0, 0], [0, 1], [2, 2]]
    assert got["drive"] == ["a", "a", "b"]
    assert got["clock"].tolist() == [0.0, 1.0, 0.0]
    named = Windows(history=2, episode="drive", time="clock")
    assert over(named, made).identity == over(Windows(history=2), made).identity


def test_what_a_column_means_goes_before_what_it_is_called(memory: Any) -> None:
    made = drives(memory, episode=["p", "q", "q"], time=np.zeros(3))
    assert "drive" in every(over(Windows(), meaning(made, drive="episode", clock="timestamp")))
    made = drives(memory, episode=["p", "q", "q"], time=np.arange(3.0))
    assert set(every(over(Windows(), made))) == {"episode", "time", "clock", "x", "pad_mask"}


def test_of_several_columns_of_one_meaning_the_usual_name_decides(memory: Any) -> None:
    made = drives(memory, episode=["p", "q", "q"], seen=np.arange(3.0))
    made = meaning(made, drive="episode", episode="episode", clock="timestamp", seen="timestamp")
    with pytest.raises(BadInput, match=r"several columns may be the time.*clock, seen") as error:
        over(Windows(), made)
    assert 'time="clock"' in error.value.fix
    got = every(over(Windows(time="seen"), made))
    assert got["episode"] == ["p", "q", "q"]


def test_a_type_tells_the_unit_of_its_numbers(memory: Any) -> None:
    made = meaning(drives(memory, 100.0), drive="episode", clock=("timestamp", {"unit": "ms"}))
    spec = Windows(history=0.2, unit="seconds", rate=10)
    assert every(over(spec, made))["pad_mask"].tolist() == [
        [True, False], [False, False], [True, False],
    ]  # fmt: skip
    told = replace(spec, time="clock", time_unit="ms")
    assert over(told, made).identity == over(spec, made).identity


def test_a_stream_takes_the_names_of_the_windows_or_what_its_own_columns_mean(
    memory: Any, episodes: Any
) -> None:
    camera = {"ride": ["a", "b"], "at": np.array([0.0, 0.0]), "frame": np.array([7, 8])}
    spec = Windows(streams={"camera": "camera"})
    with pytest.raises(NotFound, match="episode"):
        over(spec, episodes(2, 1), streams={"camera": memory(camera)})
    told = meaning(memory(camera), ride="episode", at="timestamp")
    got = every(over(spec, episodes(2, 1), streams={"camera": told}))
    assert got["camera_frame"].tolist() == [[7], [7], [8]]
    assert not {"camera_ride", "camera_at"} & set(got)
    named = Windows(streams={"camera": Stream("camera", episode="ride", time="at")})
    again = every(over(named, episodes(2, 1), streams={"camera": memory(camera)}))
    assert again["camera_frame"].tolist() == got["camera_frame"].tolist()


def test_without_any_time_the_order_is_believed_and_seconds_are_refused(memory: Any) -> None:
    made = memory({"episode": ["a", "a"], "x": np.arange(2)})
    assert len(over(Windows(), made)) == 2
    with pytest.raises(NotFound, match='"time"'):
        over(Windows(unit="seconds", rate=1), made)
    late = {"episode": ["a", "a"], "time": np.array([1.0, 0.0]), "x": np.arange(2)}
    with pytest.raises(BadInput, match="out of order"):
        over(Windows(), memory(late))
    assert every(over(Windows(time=""), memory(late)))["x"].tolist() == [[0], [1]]


def test_orders_from_before_are_what_they_were(memory: Any, episodes: Any) -> None:
    """A spec that was kept names its columns; the digest of its samples has not changed."""

    def before(source: Any, told: dict[str, Any]) -> str:
        return digest_json([FORMAT, source.identity, told, {}])

    made = episodes(3)
    for spec in (Windows(history=2), Windows(history=2, episode="episode", time="time")):
        assert over(spec, made).identity == before(made, {"history": 2})
        assert over(spec_from_json(spec_to_json(spec)), made).identity == over(spec, made).identity
    other = drives(memory)
    spec = Windows(episode="drive", time="clock", time_unit="ms")
    told = {"episode": "drive", "time": "clock", "time_unit": "ms"}
    assert over(spec, other).identity == before(other, told)
    bare = memory({"episode": ["a"], "x": np.arange(1)})
    assert over(Windows(time=None), bare).identity == before(bare, {"time": None})
