"""Which nodes take how many ranks; which agents have which."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base.errors import BadInput
from penstock.base.settings import Settings
from penstock.jobs.backends import engines
from penstock.jobs.backends.gang import Gang
from penstock.jobs.backends.places import Place, share
from penstock.jobs.backends.ray.planning import Node, most, plan, plan_at_most, shown
from penstock.jobs.rpc import Door

ONE = {"CPU": 1.0}


def node(name: str, free: float, total: float = 8.0, **more: float | None) -> Node:
    return Node(name, f"10.0.0.{name}", name, {"CPU": total}, {"CPU": free}, **more)  # type: ignore[arg-type]


@given(
    ranks=st.integers(1, 20),
    free=st.lists(st.integers(0, 8), max_size=6),
    strategy=st.sampled_from(["pack", "spread"]),
)
def test_a_plan_has_all_ranks_on_free_nodes_or_there_is_no_room(
    ranks: int, free: list[int], strategy: str
) -> None:
    nodes = [node(str(number), count) for number, count in enumerate(free)]
    found = plan(ranks, ONE, nodes, strategy)  # type: ignore[arg-type]
    if found is None:
        assert sum(free) < ranks
        return
    assert sum(found.values()) == ranks
    assert all(0 < count <= free[int(name)] for name, count in found.items())
    if strategy == "pack":  # one node less would not do
        assert sum(sorted(free, reverse=True)[: len(found) - 1]) < ranks


def test_a_node_that_goes_away_gets_nothing_and_does_not_count() -> None:
    nodes = [node("1", 4), node("2", 4, draining=30.0)]
    assert plan(5, ONE, nodes, "pack") is None
    assert plan_at_most(5, 1, ONE, nodes, "pack") == {"1": 4}
    assert most(ONE, nodes) == 8


def test_what_is_there_is_shown_with_its_gpus() -> None:
    gpus = Node("a", "10.0.0.9", "a", {"CPU": 16.0, "GPU": 2.0}, {})
    assert shown([gpus, node("1", 0)]) == "10.0.0.9 (16 CPU, 2 GPU), 10.0.0.1 (8 CPU)"
    assert shown([]) == "no node"


def test_agents_have_ranks_in_order_and_as_few_of_them_as_will_do() -> None:
    places = [Place(name, Door("10.0.0.1", 1, "", ""), 2) for name in "abc"]
    assert share(4, places) == {"a": [0, 1], "b": [2, 3]}
    assert share(7, places) == {}


def test_a_gang_of_parts_tells_when_all_are_there_and_agrees_on_a_step_ahead() -> None:
    gang = Gang.ordered({"gang": 3, "world_size": 3, "sizes": [1, 3]})
    gang.shares = {"a": [0, 1], "b": [2]}
    assert gang.is_elastic and gang.is_it({"gang": 3}) and not gang.is_it({"gang": 2})
    assert gang.started({"0": 10, "1": 11}) is None
    assert gang.started({"2": 12}) == {"0": 10, "1": 11, "2": 12}
    assert gang.progressed([0, 1], [5, 6, 0]) == [5, 6, 0]
    assert gang.progressed([2], [0, 0, 4]) == [5, 6, 4]
    assert gang.agreed(2) >= 6 + 2


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        ("kubernetes", "names none"),
        ("hosts:0", "names none"),
        ("ray://head", "names no cluster"),
        ("ray:6379", "names no cluster"),
        ("ray://10.0.0.1:10001", "needs a blob store that all nodes reach"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_one_clear_error(engine: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        engines.check(Settings(engine=engine))


def test_engines_that_can_be_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for engine in ("processes", "hosts:2", "hosts:2x4", "ray"):
        engines.check(Settings(engine=engine))
    engines.check(Settings(engine="ray://10.0.0.1:10001", blobs="s3://bucket"))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(BadInput, match="blob store"):
        engines.check(Settings(engine="ray"))
