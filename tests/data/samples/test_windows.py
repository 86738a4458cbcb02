"""Windows over episodes: which rows they hold, what is padding, and that they are samples."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.base.errors import BadInput, NotFound
from penstock.data.samples import (
    Pack,
    Stream,
    Windows,
    over,
    references,
    spec_from_json,
    spec_to_json,
)


def every(source: Any) -> dict[str, Any]:
    return source.gather(np.arange(len(source)))


def test_history_and_horizon_stay_in_their_episode(episodes: Any) -> None:
    got = every(over(Windows(history=3, horizon=2, lead=1), episodes(4, 2)))
    assert got["x"].tolist() == [
        [0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3],
        [4, 4, 4], [4, 4, 5],
    ]  # fmt: skip
    assert got["pad_mask"].tolist() == [
        [True, True, False], [True, False, False], [False] * 3, [False] * 3,
        [True, True, False], [True, False, False],
    ]  # fmt: skip
    assert got["x_ahead"].tolist() == [[1, 2], [2, 3], [3, 3], [3, 3], [5, 5], [5, 5]]
    assert got["pad_mask_ahead"].tolist() == [
        [False, False], [False, False], [False, True], [True, True],
        [False, True], [True, True],
    ]  # fmt: skip
    assert got["episode"] == ["a"] * 4 + ["b"] * 2
    assert got["time"].tolist() == [0.0, 0.1, 0.2, 0.3, 0.0, 0.1]


def test_the_horizon_begins_now_unless_told(episodes: Any) -> None:
    spec = Windows(history=1, horizon=3, history_columns=(), horizon_columns=("x",))
    got = every(over(spec, episodes(4)))
    assert got["x"].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 3], [3, 3, 3]]
    assert "pad_mask" not in got  # nothing is taken from the history


def test_zeros_for_padding(episodes: Any) -> None:
    names = ["p", "q", "r", "s"]
    spec = Windows(history=2, pad="zero", history_columns=("x", "label"))
    got = every(over(spec, episodes(3, 1, label=names)))
    assert got["x"].tolist() == [[0, 0], [0, 1], [1, 2], [0, 3]]
    assert got["label"] == [[None, "p"], ["p", "q"], ["q", "r"], [None, "s"]]


def test_columns_of_text_are_lists_of_lists_when_named_and_left_out_when_not(episodes: Any) -> None:
    made = episodes(2, 1, label=["p", "q", "r"])
    assert "label" not in every(over(Windows(history=2), made))
    got = every(over(Windows(history=2, history_columns="label"), made))
    assert got["label"] == [["p", "p"], ["p", "q"], ["r", "r"]]


def test_now_columns_come_once(episodes: Any) -> None:
    spec = Windows(history=2, now_columns=["label"])
    got = every(over(spec, episodes(2, 1, label=["p", "q", "r"])))
    assert got["label"] == ["p", "q", "r"]


def test_tensors_keep_their_shape_and_dtype(episodes: Any) -> None:
    image = np.arange(4 * 6, dtype=np.uint8).reshape(4, 2, 3)
    source = over(Windows(history=2, history_columns="image"), episodes(4, image=image))
    got = every(source)["image"]
    assert got.dtype == np.uint8
    assert got.shape == (4, 2, 2, 3)
    assert (got[:, 1] == image).all()
    assert {c.name: (str(c), c.shape) for c in source.columns}["image"][1] == (2, 2, 3)


def test_drop_leaves_out_what_would_need_padding(episodes: Any, caplog: Any) -> None:
    source = over(Windows(history=3, horizon=2, lead=1, pad="drop"), episodes(7, 4, 5))
    got = every(source)
    assert got["x"].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [11, 12, 13]]
    assert got["x_ahead"].tolist() == [[3, 4], [4, 5], [5, 6], [14, 15]]
    assert not got["pad_mask"].any()
    assert not got["pad_mask_ahead"].any()
    assert (source.dropped_episodes, source.dropped_rows) == (1, 12)
    assert "1 of 3 episodes, which are shorter than a window: 'b'" in caplog.text


def test_a_stride_takes_every_nth_moment_of_an_episode(episodes: Any) -> None:
    got = every(over(Windows(stride=3), episodes(7, 2, 4)))
    assert got["x"].tolist() == [[0], [3], [6], [7], [9], [12]]


def test_a_window_too_long_for_all_is_refused(episodes: Any) -> None:
    with pytest.raises(BadInput, match=r"no window is left.*3 rows") as error:
        over(Windows(history=4, pad="drop"), episodes(3, 2))
    assert error.value.facts == {"episodes": 2, "rows": 5}


# seconds and streams


def test_seconds_take_the_newest_row_not_later(memory: Any) -> None:
    times = np.array([0.0, 0.1, 0.19, 0.31, 0.4])
    made = memory({"episode": np.zeros(5, int), "time": times, "x": np.arange(5)})
    got = every(over(Windows(history=0.3, unit="seconds", rate=10), made))
    assert got["x"].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [1, 2, 3], [2, 2, 4]]
    assert got["pad_mask"].sum(1).tolist() == [2, 1, 1, 0, 0]


def test_seconds_and_steps_agree_where_the_clock_is_even(episodes: Any) -> None:
    made = episodes(9, 4, 6)
    steps = every(over(Windows(history=3, horizon=2, lead=1), made))
    seconds = Windows(history=0.3, horizon=0.2, lead=0.1, unit="seconds", rate=10)
    got = every(over(seconds, made))
    assert all(np.array_equal(got[name], steps[name]) for name in steps)


def camera(memory: Any, *rows: int, late: float = 0.0) -> Any:
    names = [chr(ord("a") + number) for number, many in enumerate(rows) for _ in range(many)]
    times = np.concatenate([np.arange(many) / 5 + late for many in rows])
    return memory({"episode": names, "time": times, "frame": np.arange(len(names))})


def test_a_stream_gives_its_newest_frame_for_each_wanted_time(episodes: Any, memory: Any) -> None:
    spec = Windows(streams={"camera": Stream("robot-camera", history=2, rate=5)})
    got = every(over(spec, episodes(5, 3), streams={"camera": camera(memory, 3, 2)}))
    # at 10 Hz and 5 Hz: two rows see one frame
    assert got["camera_frame"].tolist() == [
        [0, 0], [0, 0], [0, 1], [0, 1], [1, 2],
        [3, 3], [3, 3], [3, 4],
    ]  # fmt: skip
    assert got["camera_pad_mask"][:, 0].tolist() == [
        *(True, True, False, False, False), *(True, True, False),
    ]  # fmt: skip
    assert not got["camera_pad_mask"][:, 1].any()


def test_the_nearest_frame_may_be_a_later_one(episodes: Any, memory: Any) -> None:
    for align, wanted in (("before", [0, 0, 0, 1]), ("nearest", [0, 0, 1, 1])):
        spec = Windows(streams={"camera": Stream("c", align=align)})
        got = every(over(spec, episodes(4), streams={"camera": camera(memory, 3, late=0.05)}))
        assert got["camera_frame"][:, 0].tolist() == wanted
        assert got["camera_pad_mask"][0, 0] == (align == "before")  # nothing was seen yet


def test_what_is_further_away_than_the_tolerance_is_padding(episodes: Any, memory: Any) -> None:
    spec = Windows(streams={"camera": Stream("c", tolerance=0.05)}, pad="zero")
    got = every(over(spec, episodes(4), streams={"camera": camera(memory, 2)}))
    assert got["camera_pad_mask"][:, 0].tolist() == [False, True, False, True]
    drop = over(
        Windows(streams={"camera": Stream("c", tolerance=0.05)}, pad="drop"),
        episodes(4, 1),
        streams={"camera": camera(memory, 2)},
    )
    assert every(drop)["x"].tolist() == [[0], [2]]
    assert drop.dropped_episodes == 1  # the camera has no episode b


def test_an_episode_that_a_stream_lacks_is_refused_or_padded(episodes: Any, memory: Any) -> None:
    streams = {"camera": camera(memory, 3)}
    with pytest.raises(BadInput, match="nothing of 1 of 2 episodes: 'b'"):
        over(Windows(streams={"camera": "c"}), episodes(5, 3), streams=streams)
    got = every(over(Windows(streams={"camera": "c"}, pad="zero"), episodes(5, 3), streams=streams))
    assert got["camera_pad_mask"][:, 0].tolist() == [False] * 5 + [True] * 3
    assert got["camera_frame"][5:].tolist() == [[0]] * 3


def test_clocks_kept_as_float32_meet_those_kept_as_float64(memory: Any) -> None:
    n = 2000
    base = {"episode": np.zeros(n, int), "time": (np.arange(n) / 50), "x": np.arange(n)}
    seen = {
        "episode": np.zeros(n // 5, int),
        "time": (np.arange(n // 5) / 10).astype(np.float32),
        "frame": np.arange(n // 5),
    }
    spec = Windows(streams={"camera": "c"})
    got = every(over(spec, memory(base), streams={"camera": memory(seen)}))
    assert got["camera_frame"][:, 0].tolist() == (np.arange(n) // 5).tolist()


def brute(times: Any, names: Any, spec: Windows, row: int) -> tuple[list[int], list[bool]]:
    """The history in seconds by the words of its definition, with plain Python."""
    mine = [r for r in range(len(names)) if names[r] == names[row]]
    found, padding = [], []
    steps = round(spec.history * spec.rate)
    for k in range(steps - 1, -1, -1):
        wanted = times[row] - k / spec.rate
        before = [r for r in mine if times[r] <= wanted + 1e-6]
        out = wanted < times[mine[0]] - 1e-6 or wanted > times[mine[-1]] + 1e-6
        found.append(before[-1] if before else mine[0])
        padding.append(out or not before)
    return found, padding


@settings(deadline=None)
@given(
    gaps=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=12), min_size=1, max_size=5),
    steps=st.integers(1, 5),
    offset=st.integers(-1000, 1000),
)
def test_every_window_in_seconds_is_what_the_words_say(
    memory: Any, gaps: list[list[int]], steps: int, offset: int
) -> None:
    times = np.concatenate([offset + np.cumsum(each) * 0.01 for each in gaps])
    names = np.repeat(np.arange(len(gaps)), [len(each) for each in gaps])
    made = memory({"episode": names, "time": times, "x": np.arange(len(times))})
    spec = Windows(history=steps * 0.02, unit="seconds", rate=50)
    got = every(over(spec, made))
    for row in range(len(times)):
        rows, padding = brute(times, names, spec, row)
        assert got["x"][row].tolist() == rows
        assert got["pad_mask"][row].tolist() == padding


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    history=st.integers(1, 5),
    horizon=st.integers(0, 4),
    lead=st.integers(-2, 3),
    stride=st.integers(1, 3),
    pad=st.sampled_from(["edge", "zero", "drop"]),
)
def test_every_window_in_steps_is_what_the_words_say(
    memory: Any, lengths: Any, history: int, horizon: int, lead: int, stride: int, pad: Any
) -> None:
    names = np.repeat(np.arange(len(lengths)), lengths)
    made = memory({"episode": names, "x": np.arange(1, len(names) + 1)})
    spec = Windows(history=history, horizon=horizon, lead=lead, stride=stride, pad=pad, time=None)
    wanted = [*range(1 - history, 1)], [*range(lead, lead + horizon)]
    moments: list[tuple[int, int, int]] = []
    first = 0
    for length in lengths:
        inside = [
            row
            for row in range(first, first + length)
            if pad != "drop"
            or all(first <= row + k < first + length for part in wanted for k in part)
        ]
        moments += [(row, first, first + length) for row in inside[::stride]]
        first += length
    if not moments:
        with pytest.raises(BadInput, match="no window is left"):
            over(spec, made)
        return
    source = over(spec, made)
    got = every(source)
    assert len(source) == len(moments)
    for part, x, mask in zip(wanted, ("x", "x_ahead"), ("pad_mask", "pad_mask_ahead"), strict=True):
        for number, (row, low, high) in enumerate(moments if part else []):
            rows = [row + k for k in part]
            out = [not low <= each < high for each in rows]
            value = [min(max(each, low), high - 1) + 1 for each in rows]
            if pad == "zero":
                value = [0 if o else v for o, v in zip(out, value, strict=True)]
            assert got[x][number].tolist() == value
            assert got[mask][number].tolist() == out


# the spec


def test_a_spec_survives_json() -> None:
    spec = Windows(
        history=0.5,
        horizon=1,
        unit="seconds",
        rate=50,
        horizon_columns=["action"],
        streams={"camera": Stream("robot-camera:train", history=0.2, rate=10)},
        pad="zero",
    )
    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec
    assert references(spec) == {"camera": "robot-camera:train"}


def test_a_stream_without_a_split_takes_that_of_the_windows() -> None:
    spec = Windows(streams={"camera": "robot-camera@3", "force": "robot-force:all"})
    assert references(spec, "test") == {"camera": "robot-camera@3:test", "force": "robot-force:all"}
    assert references(Pack(), "test") == {}


def test_the_identity_changes_with_the_spec_and_with_nothing_else(episodes: Any) -> None:
    made = episodes(5, 3)
    seen = {over(each, made).identity for each in (
        Windows(), Windows(history=2), Windows(horizon=1), Windows(pad="zero"), Windows(stride=2),
    )}  # fmt: skip
    assert len(seen) == 5
    assert over(Windows(history=8.0), made).identity == over(Windows(history=8), made).identity
    assert over(Windows(), episodes(5, 2)).identity not in seen


def test_a_stream_counts_by_its_content_not_by_its_reference(episodes: Any, memory: Any) -> None:
    def identity(reference: str, frames: int) -> str:
        spec = Windows(streams={"camera": reference})
        return over(spec, episodes(5), streams={"camera": camera(memory, frames)}).identity

    assert identity("camera@1:train", 3) == identity("camera:train", 3)
    assert identity("camera:train", 3) != identity("camera:train", 4)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"history": -1}, "history of -1"),
        ({"history": 0}, "without history and horizon"),
        ({"history": 1.5}, "no whole number of steps"),
        ({"history": 0.25, "unit": "seconds", "rate": 50}, "0.25 s at 50 Hz is 12.5"),
        ({"unit": "seconds"}, "need a rate"),
        ({"rate": 50}, "says nothing about windows in steps"),
        ({"tolerance": 1}, "says nothing about windows in steps"),
        ({"unit": "hours"}, '(?s)unit is .hours.*"steps" or "seconds"'),
        ({"pad": "mirror"}, '"edge" or "zero" or "drop"'),
        ({"stride": 0}, "stride of 0"),
        ({"time": "", "streams": {"c": "c"}}, "need a column of time"),
        ({"rate": float("nan"), "unit": "seconds"}, "rate of nan"),
    ],
)
def test_a_spec_that_says_nothing_sensible_is_refused(options: Any, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        Windows(**options)


def test_a_stream_of_several_steps_needs_a_rate() -> None:
    with pytest.raises(BadInput, match="no rate"):
        Stream("camera", history=2)


def test_a_field_or_kind_that_is_unknown_is_refused() -> None:
    with pytest.raises(BadInput, match='no field "histery"') as error:
        spec_from_json({"samples": "windows", "histery": 3})
    assert "history" in error.value.fix
    with pytest.raises(BadInput, match="no kind of samples"):
        spec_from_json({"samples": "widnows"})


# bad data


@pytest.mark.parametrize("field", ["history_columns", "horizon_columns", "now_columns"])
def test_an_unknown_column_offers_the_nearest(episodes: Any, field: str) -> None:
    made = episodes(3, action=np.zeros(3))
    with pytest.raises(NotFound, match="actoin") as error:
        over(Windows(horizon=1, **{field: "actoin"}), made)
    assert '"action"' in error.value.fix


def test_unknown_episode_and_time_columns_offer_the_nearest(episodes: Any) -> None:
    for options in ({"episode": "epsiode"}, {"time": "tmie"}):
        with pytest.raises(NotFound, match="column"):
            over(Windows(**options), episodes(3))


@pytest.mark.parametrize("second", [0.1, 0.05])
def test_timestamps_out_of_order_name_episode_and_row(memory: Any, second: float) -> None:
    made = memory(
        {"episode": ["a", "a", "b", "b"], "time": np.array([0, 1, 0.1, second]), "x": np.arange(4)}
    )
    with pytest.raises(BadInput, match="out of order in episode 'b': row 3") as error:
        over(Windows(), made)
    assert error.value.facts == {"episode": "b", "row": 3}


def test_order_is_looked_at_across_blocks(memory: Any, monkeypatch: Any) -> None:
    from penstock.data.samples import reading

    monkeypatch.setattr(reading, "BLOCK", 3)
    times = np.array([0.0, 1, 2, 1.5, 3, 4, 0, 1])
    names = np.array([7, 7, 7, 7, 7, 7, 8, 8])
    with pytest.raises(BadInput, match="episode 7: row 3"):
        over(Windows(), memory({"episode": names, "time": times, "x": np.arange(8)}))
    times[3] = 2.5
    got = every(over(Windows(history=2), memory({"episode": names, "time": times, "x": times})))
    assert got["pad_mask"][:, 0].tolist() == [True, *[False] * 5, True, False]


def test_an_episode_in_pieces_is_named(memory: Any) -> None:
    made = memory({"episode": ["a", "b", "a"], "time": np.array([0.0, 0, 1]), "x": np.arange(3)})
    with pytest.raises(BadInput, match=r"'a' lies in pieces: it began at row 0.*row 2"):
        over(Windows(), made)


def test_a_missing_time_or_episode_names_the_row(memory: Any) -> None:
    times = np.array([0.0, np.nan])
    with pytest.raises(BadInput, match="row 1 has no usable time"):
        over(Windows(), memory({"episode": ["a", "a"], "time": times, "x": times}))
    with pytest.raises(BadInput, match="row 1 has no value in the episode column"):
        over(Windows(time=None), memory({"episode": ["a", None], "x": times}))


def test_columns_that_are_no_episode_or_no_time_are_refused(memory: Any) -> None:
    made = memory({"episode": np.zeros((2, 2)), "time": ["a", "b"], "x": np.zeros(2)})
    with pytest.raises(BadInput, match="cannot name episodes"):
        over(Windows(), made)
    with pytest.raises(BadInput, match="which is no time"):
        over(Windows(), memory(made.data | {"episode": np.zeros(2, int)}))


def test_streams_must_be_those_of_the_spec(episodes: Any) -> None:
    with pytest.raises(BadInput, match=r"name streams \['camera'\], given are none"):
        over(Windows(streams={"camera": "c"}), episodes(3))


def test_two_columns_of_one_name_are_refused(episodes: Any) -> None:
    made = episodes(3, pad_mask=np.zeros(3))
    with pytest.raises(BadInput, match="two columns pad_mask"):
        over(Windows(history_columns=("x", "pad_mask")), made)


# the protocol


def test_only_what_is_needed_is_read(episodes: Any) -> None:
    made = episodes(6, big=np.zeros((6, 100)))
    source = over(Windows(history=2, history_columns="x"), made)
    assert made.gathered["big"] == made.gathered["x"] == 0  # the index reads its two columns
    source.gather(np.arange(3))
    assert (made.gathered["x"], made.gathered["big"]) == (6, 0)


def test_hints_reach_the_rows_below(episodes: Any) -> None:
    made = episodes(6)
    source = over(Windows(history=3), made)
    source.ahead(np.array([4]))
    source.done(np.array([4]))
    source.close()
    assert made.calls == [("ahead", [2, 4]), ("done", [4]), ("close", None)]
