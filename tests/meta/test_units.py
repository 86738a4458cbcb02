"""Units: handed out under a generation, committed exactly once."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.base.errors import NotFound
from penstock.base.hashing import digest_bytes
from penstock.meta import Meta
from penstock.records import Run, Unit

A, B, C = (digest_bytes(bytes([n])) for n in range(3))


@pytest.fixture
def units(meta: Meta, run: Run) -> Meta:
    """A run with three waiting units."""
    with meta.write() as writer:
        assert writer.add_units(run.id, {key: {"row": key} for key in "cab"}) == 3
    return meta


def _states(meta: Meta) -> dict[str, str]:
    with meta.read() as reader:
        return {unit.key: unit.state for unit in reader.units("run-1")}


def test_units_keep_the_order_in_which_they_were_added(units: Meta) -> None:
    with units.read() as reader:
        found = reader.units("run-1")
        assert reader.units("run-1", states=["done"]) == []
        assert reader.units("run-0") == []
    assert found == [Unit("run-1", key, "waiting", {"row": key}) for key in "cab"]


def test_units_that_exist_are_left_alone(units: Meta) -> None:
    with units.write() as writer:
        writer.finish_units("run-1", {"a": {"n": 1}})
        assert writer.add_units("run-1", {"a": {"row": "new"}, "d": {}}) == 1
        assert writer.add_units("run-1", {}) == 0
        assert writer.unit_counts("run-1") == {"waiting": 3, "done": 1}


def test_units_are_handed_out_once_per_generation(units: Meta) -> None:
    with units.write() as writer:
        first = writer.lease_units("run-1", generation=4, limit=2)
        second = writer.lease_units("run-1", generation=4, limit=2)
        assert writer.lease_units("run-1", generation=4, limit=2) == []
        newer = writer.lease_units("run-1", generation=5, limit=9)
    assert [unit.key for unit in first] == ["c", "a"]
    assert [unit.key for unit in second] == ["b"]
    assert first[0] == Unit("run-1", "c", "leased", {"row": "c"}, tries=1, generation=4)
    assert [(unit.key, unit.tries, unit.generation) for unit in newer] == [
        ("c", 2, 5),
        ("a", 2, 5),
        ("b", 2, 5),
    ]


def test_a_dead_workers_units_wait_again(units: Meta) -> None:
    with units.write() as writer:
        writer.lease_units("run-1", 1, 3)
        writer.finish_units("run-1", {"a": {}})
        writer.give_back_units("run-1", ["a", "b"])
    assert _states(units) == {"a": "done", "b": "waiting", "c": "leased"}


def test_a_result_is_committed_once(units: Meta) -> None:
    with units.write() as writer:
        writer.lease_units("run-1", 1, 3)
        assert writer.finish_units("run-1", {"a": {"blob": A}}, [B]) == ["a"]
        assert writer.finish_units("run-1", {"a": {"blob": C}, "b": {}}) == ["b"]
        assert writer.referenced([A, B, C]) == {A, B}
        found = {unit.key: unit.result for unit in writer.units("run-1")}
    assert found == {"a": {"blob": A}, "b": {}, "c": None}


def test_a_failed_unit_keeps_its_error_and_a_done_one_its_result(units: Meta) -> None:
    with units.write() as writer:
        writer.fail_unit("run-1", "a", {"code": "user-code"})
        writer.finish_units("run-1", {"b": {"n": 1}})
        writer.fail_unit("run-1", "b", {"code": "late"})
        found = {unit.key: (unit.state, unit.result) for unit in writer.units("run-1")}
    assert found["a"] == ("failed", {"code": "user-code"})
    assert found["b"] == ("done", {"n": 1})


def test_an_unknown_unit_is_not_found_and_nothing_is_committed(units: Meta) -> None:
    with pytest.raises(NotFound) as caught, units.write() as writer:
        writer.finish_units("run-1", {"a": {}, "aa": {}})
    assert caught.value.facts["unit"] == "aa"
    assert _states(units)["a"] == "waiting"


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("lease"), st.integers(1, 4)),
            st.tuples(st.just("finish"), st.integers(0, 5)),
            st.tuples(st.just("fail"), st.integers(0, 5)),
            st.tuples(st.just("give back"), st.integers(0, 5)),
        ),
        max_size=25,
    )
)
def test_whatever_happens_the_first_result_of_a_unit_stays(
    meta: Meta, steps: list[tuple[str, int]]
) -> None:
    with meta.write() as writer:
        name = f"run-{len(writer.runs(limit=10_000))}"
        writer.add_run(Run(name, "x", "evaluate", "running", {}))
        writer.add_units(name, {str(n): {} for n in range(6)})
    first: dict[str, int] = {}
    generation = 1
    for number, (step, n) in enumerate(steps):
        with meta.write() as writer:
            if step == "lease":
                generation += n % 2
                writer.lease_units(name, generation, n)
            elif step == "finish" and writer.finish_units(name, {str(n): {"number": number}}):
                assert first.setdefault(str(n), number) == number
            elif step == "fail":
                writer.fail_unit(name, str(n), {})
            elif step == "give back":
                writer.give_back_units(name, [str(n)])
    with meta.read() as reader:
        done = reader.units(name, ["done"])
    assert {unit.key: unit.result["number"] for unit in done} == first  # type: ignore[index]
