"""What `run.data` reads beside a split: mixtures, torch's datasets, windows; each in one order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

from penstock.base.errors import BadInput, NotFound, UserCodeFailed
from penstock.base.settings import load_settings
from penstock.data import Mix, prepare, resolve
from penstock.data.expectations import Expectations
from penstock.data.samples import Windows
from penstock.jobs import forks
from penstock.jobs.stores import Stores, open_stores
from penstock.training.data import Reading


class Seat:
    """The link of one rank, whose controller is here."""

    def __init__(self, stores: Stores, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self.fork = forks.fork
        self.told: list[tuple[str, dict[str, Any]]] = []
        self._stores = stores

    def call(self, kind: str, payload: dict[str, Any]) -> dict[str, Any]:
        assert kind == "data"
        with self._stores.meta.read() as meta:
            version, split = resolve(meta, payload["reference"])
        return {"digest": version.digest, "split": split or "all", "reference": version.reference}

    def tell(self, kind: str, payload: dict[str, Any]) -> None:
        self.told.append((kind, payload))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Datasets of 30 and 18 rows in episodes of 6, and one of 8 whose rows are ragged."""
    folder = tmp_path_factory.mktemp("project")
    with open_stores(load_settings(folder=folder, environment={}, home=folder / "home")) as opened:
        for name, count, first in (("arms", 30, 0), ("hands", 18, 1000)):
            prepare(opened, name, steps(count, first), key="id", splits={"all": 1.0})
        words = [{"id": i, "words": np.arange(i % 4)} for i in range(8)]
        prepare(opened, "ragged", lambda: iter(words), key="id", splits={"all": 1.0})
        yield opened


def steps(count: int, first: int) -> Callable[[], Any]:
    """Rows of a robot: id, episode, time, joints [2], which know their number."""

    def make() -> Any:
        for i in range(count):
            at = {"id": first + i, "episode": f"{first}-{i // 6}", "time": i % 6 / 10}
            yield {**at, "joints": np.full(2, first + i, np.float32)}

    return make


Data = Callable[..., Any]


@pytest.fixture
def data(stores: Stores) -> Any:
    """`data(source, …)`: what `run.data` gives rank 0 of 1, or `rank` of `world_size`."""
    made: list[Any] = []

    def run(
        source: Any, rank: int = 0, world_size: int = 1, expect: Any = None, **options: Any
    ) -> Any:
        seat = Seat(stores, rank, world_size)
        reading = Reading(seat, stores.blobs, stores.layout, 5, torch.device("cpu"))  # type: ignore[arg-type]
        asked = {"batch_size": 6, "samples": None, "columns": None} | options
        size, samples, columns = (asked.pop(n) for n in ("batch_size", "samples", "columns"))
        loader = reading.expecting(expect).loader(source, size, samples, columns, asked)  # type: ignore[arg-type]
        loader.seat = seat
        made.append(loader)
        return loader

    yield run
    for loader in made:
        loader.close()


def ids(batches: Any, name: str = "id") -> list[list[int]]:
    return [batch[name].tolist() for batch in batches]


def joined(data: Data, source: Any, name: str = "id", ranks: int = 3, **options: Any) -> Any:
    """The global batches that three ranks make up."""
    parts = [ids(data(source, rank, ranks, **options), name) for rank in range(ranks)]
    return [list(chain.from_iterable(step)) for step in zip(*parts, strict=True)]


def flat(batches: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(batches))


# splits


RULES = Expectations.from_toml(
    """
    [columns.id]
    range = { least = 3, most = 1010, severity = "quarantine" }
    [columns.episode]
    pattern = { is = "-[0-3]$" }
    """
)


def test_rows_that_quarantine_names_are_in_no_batch_of_a_mixture(data: Data) -> None:
    def alone(source: str) -> set[int]:
        return {*flat(ids(data(source, expect=RULES, drop_last=False)))}

    assert (alone("arms:all"), alone("hands:all")) == ({*range(3, 30)}, {*range(1000, 1011)})
    mix = Mix({"arms:all": 1.0, "hands:all": 1.0}, until="all")
    assert {*flat(joined(data, mix, expect=RULES))} == alone("arms:all") | alone("hands:all")


def test_rank_0_tells_once_what_a_version_does_not_hold(data: Data) -> None:
    loader = data("arms:all", expect=RULES)
    (told,) = [each for kind, each in loader.seat.told if kind == "checked"]
    assert (told["reference"], told["by"], told["aside"]) == ("arms@1", "rows", {"all": 3})
    assert [each["expectation"] for each in told["violations"]] == [
        "columns.id.range",
        "columns.episode.pattern",
    ]
    other = data("arms:all", rank=1, world_size=2, expect=RULES)
    assert not other.seat.told


def test_samples_of_several_rows_do_not_reach_over_rows_that_are_set_aside(data: Data) -> None:
    with pytest.raises(BadInput, match="3 rows of arms@1:all are set aside"):
        data("arms:all", samples=Windows(history=2), expect=RULES)
    mild = RULES.with_severity("warn", "range")
    assert len(data("arms:all", samples=Windows(history=2), expect=mild))


def test_a_split_is_read_in_the_runs_order_which_rank_0_tells(data: Data) -> None:
    whole = data("arms:all", epochs=2)
    assert ids(whole) == joined(data, "arms:all", epochs=2) == ids(data("arms@1", epochs=2, seed=5))
    assert Counter(flat(ids(whole))) == dict.fromkeys(range(30), 2)
    ((kind, told),) = whole.seat.told
    assert (kind, told["reference"], told["rows"], told["seed"]) == ("data", "arms:all", 30, 5)
    assert data("arms:all", 1, 2).seat.told == []


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.torch)])
def test_filter_map_and_collate_reach_the_loader(data: Data, workers: int) -> None:
    options: dict[str, Any] = {"filter": is_early, "map": negative, "workers": workers}
    batches = list(data("arms:all", collate=summed, **options))
    assert [batch["count"] for batch in batches] == [6, 6]
    kept = {i for i in range(30) if i % 6 < 3}
    assert all(-id in kept for batch in batches for id in batch["ids"])
    padded = next(iter(data("ragged:all", batch_size=8, shuffle=False, collate="pad")))
    assert padded["words"].shape == padded["words_pad_mask"].shape == (8, 3)


def is_early(sample: Any) -> bool:
    return bool(sample["time"] < 0.25)


def negative(sample: Any) -> Any:
    return {**sample, "id": -sample["id"]}


def summed(samples: list[Any]) -> Any:
    return {"count": len(samples), "ids": [int(sample["id"]) for sample in samples]}


# mixtures

MIX = Mix({"arms:all": 2, "hands:all": 1})


def test_the_history_tells_the_order_of_each_source_of_a_mixture(data: Data) -> None:
    loader = data(MIX, epochs=1)
    told = [payload for kind, payload in loader.seat.told if kind == "data"]
    assert [each["reference"] for each in told] == ["arms:all", "hands:all"]
    assert [each["rows"] for each in told] == [30, 18]
    for each in told:
        assert each["batch"] == loader.batch_size and each["mixed"] == ["arms:all", "hands:all"]
        assert each["seed"] == loader.orders[each["reference"]].seed


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.torch)])
def test_a_mixture_gives_its_shares_alike_at_every_world_size(data: Data, workers: int) -> None:
    whole = data(MIX, epochs=1, workers=workers)
    batches = ids(whole)
    assert batches == joined(data, MIX, epochs=1)
    assert [sum(each < 1000 for each in batch) for batch in batches] == [4] * len(batches)
    assert len(batches) == 7 and len(set(flat(batches))) == 42  # the eighth would repeat arms
    first = data(MIX)
    head = ids(islice(first, 3))
    rest = data(MIX, 0, 1)
    rest.load_state(first.state())
    assert head + ids(rest) == batches
    only = next(iter(data(MIX, columns=["joints", "time"], filter=is_early)))
    assert sorted(only) == ["joints", "time"] and (only["time"] < 0.25).all()


def test_a_mixture_of_windows_gives_moments_of_all_its_sources(data: Data) -> None:
    windows = Windows(history=3, history_columns=("joints",), now_columns=("id",))
    options: dict[str, Any] = {"samples": windows}
    batches = list(data(MIX, **options))
    assert {each["joints"].shape for each in batches} == {(6, 3, 2)}
    moments = ids(batches)
    assert moments == joined(data, MIX, **options)
    assert [sum(each < 1000 for each in batch) for batch in moments] == [4] * len(moments)
    for batch in batches:
        now = batch["joints"][:, -1, 0].long()
        assert torch.equal(now, batch["id"])
        place = batch["id"] % 1000 % 6
        assert torch.equal((~batch["pad_mask"]).sum(1), (place + 1).clamp(max=3))


# torch's datasets


class Squares(Dataset[Any]):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, row: int) -> Any:
        return {"row": row, "noise": torch.rand(2), "square": row * row}


class Counting(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter({"row": row} for row in range(40))


def odd(sample: Any) -> bool:
    return bool(sample["row"] % 2)


def test_a_map_style_dataset_gets_penstocks_order_and_keyed_noise(data: Data) -> None:
    whole = list(data(Squares(), epochs=2))
    rows = ids(whole, "row")
    assert rows == joined(data, Squares(), "row", epochs=2)
    assert len(set(flat(rows[:3]))) == 18 and rows[:3] != rows[3:]
    first = data(Squares(), epochs=2)
    head = list(islice(first, 4))
    rest = data(Squares(), epochs=2)
    rest.load_state(first.state())
    for one, other in zip([*head, *rest], whole, strict=True):
        assert torch.equal(one["noise"], other["noise"])
        assert torch.equal(one["square"], one["row"] ** 2)
    assert set(flat(ids(data(Squares(), filter=odd, drop_last=False), "row"))) == {*range(1, 20, 2)}


def test_a_stream_gives_every_rank_its_part(data: Data) -> None:
    whole = ids(data(Counting()), "row")
    assert whole == joined(data, Counting(), "row") == [[*range(i, i + 6)] for i in range(0, 36, 6)]
    assert ids(data(Counting(), drop_last=False), "row")[-1] == [36, 37, 38, 39]


@pytest.mark.parametrize("option", ["epochs", "shuffle", "filter", "map", "collate", "workers"])
def test_a_stream_refuses_what_it_could_not_keep(data: Data, option: str) -> None:
    with pytest.raises(BadInput, match=f"an IterableDataset takes no {option}"):
        data(Counting(), **{option: 2})


# what cannot be


@pytest.mark.parametrize(
    ("source", "options", "match"),
    [
        (7, {}, "run.data got a int"),
        (Squares(), {"columns": ["row"]}, "are of a dataset's split"),
        (Squares(), {"samples": Windows(history=2)}, "are of a dataset's split"),
        (Squares(), {"expect": "rules.toml"}, "expect= is of dataset versions"),
        ("arms:all", {"samples": Windows(history=2), "columns": ["id"]}, "beside samples="),
        ("arms:all", {"epoch": 3}, "there is no option epoch"),
        (MIX, {"wrokers": 2}, "there is no option wrokers"),
        (MIX, {"batch_size": 7, "world_size": 2}, "does not divide by 2"),
        (Mix({"arms:all": 1, "ragged:all": 1}), {}, "different columns"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(
    data: Data, tmp_path: Path, source: Any, options: dict[str, Any], match: str
) -> None:
    if "expect" in options:
        options = {"expect": tmp_path / options["expect"]}
        options["expect"].write_text("[columns.row]\nmissing = { most = 0.0 }\n")
    with pytest.raises(BadInput, match=match):
        data(source, **options)


def test_a_function_that_fails_over_a_mixture_names_the_samples_key(data: Data) -> None:
    with pytest.raises(UserCodeFailed, match=r'in map, row .*, key "1003"'):
        list(data(MIX, map=fails_at_1003))


def fails_at_1003(sample: Any) -> Any:
    if sample["id"] == 1003:
        raise ValueError("on purpose")
    return sample


def test_an_unknown_source_of_a_mixture_is_named(data: Data) -> None:
    with pytest.raises(NotFound, match="armz"):
        data(Mix({"armz:all": 1, "hands:all": 1}))
