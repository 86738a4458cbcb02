"""Versions, aliases, evaluations, deployments, memories, references."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.base.clock import ManualClock
from penstock.base.errors import BadInput, Conflict, NotFound
from penstock.base.hashing import digest_bytes
from penstock.meta import Meta
from penstock.records import Alias, Deployment, Evaluation, Memory, Run, Version

A, B, C, D, E, F = (digest_bytes(bytes([n])) for n in range(6))


def _version(meta: Meta, name: str, producer: str, digest: str = A) -> Version:
    with meta.write() as writer:
        return writer.add_version("model", name, digest, producer, {}, [])


def _move(meta: Meta, alias: str, version: int, expect: int | None) -> Alias:
    with meta.write() as writer:
        return writer.move_alias("model", "cnn", alias, version, expect)


# versions


def test_versions_are_numbered_per_kind_and_name(meta: Meta, clock: ManualClock) -> None:
    with meta.write() as writer:
        one = writer.add_version("model", "cnn", A, "run/1", {"bytes": 3}, [])
        two = writer.add_version("model", "cnn", B, "run/2", {}, [])
        other = writer.add_version("model", "mlp", C, "run/1", {}, [])
        data = writer.add_version("dataset", "cnn", D, "run/1", {}, [])
    assert [v.version for v in (one, two, other, data)] == [1, 2, 1, 1]
    assert one == Version("model", "cnn", 1, A, "run/1", clock.wall(), {"bytes": 3})
    with meta.read() as reader:
        assert reader.names("model") == ["cnn", "mlp"]
        assert reader.versions("model") == [other, two, one]
        assert reader.versions("model", "cnn", limit=1) == [two]
        assert reader.find_version("model", "cnn") == two
        assert reader.find_version("model", "cnn", 1) == one
        assert reader.find_version("model", "cnn", 3) is None
        assert reader.find_produced("dataset", "run/1") == data
        assert reader.find_produced("dataset", "run/2") is None


def test_the_same_producer_gets_the_version_it_made(meta: Meta) -> None:
    first = _version(meta, "cnn", "run/1", A)
    assert _version(meta, "cnn", "run/1", B) == first
    with meta.read() as reader:
        assert reader.versions("model") == [first]
        assert [event.kind for event in reader.events()] == ["version.added"]


def test_a_name_that_could_not_be_written_is_refused(meta: Meta) -> None:
    with pytest.raises(BadInput):
        _version(meta, "../up", "run/1")


def test_references_resolve(meta: Meta) -> None:
    for n in (1, 2, 3):
        _version(meta, "team/cnn", f"run/{n}")
    with meta.write() as writer:
        writer.move_alias("model", "team/cnn", "production", 2, None)
    with meta.read() as reader:
        for text, number in [
            ("team/cnn", 3),
            ("team/cnn@1", 1),
            ("team/cnn@production", 2),
            ("team/cnn@production:test", 2),
        ]:
            assert reader.get_version("model", text).version == number


@pytest.mark.parametrize(
    ("asked", "offered"),
    [("cmn", '"cnn"'), ("cnn@7", "cnn@1"), ("cnn@prodution", '"production"'), ("zzz", "cnn")],
)
def test_an_unknown_reference_offers_the_nearest(meta: Meta, asked: str, offered: str) -> None:
    _version(meta, "cnn", "run/1")
    _move(meta, "production", 1, None)
    with meta.read() as reader, pytest.raises(NotFound) as caught:
        reader.get_version("model", asked)
    assert offered in caught.value.fix


def test_a_reference_that_is_none_is_bad_input(meta: Meta) -> None:
    with meta.read() as reader, pytest.raises(BadInput):
        reader.get_version("model", "cnn@@1")


# aliases


def test_an_alias_moves_by_compare_and_swap(meta: Meta, clock: ManualClock) -> None:
    _version(meta, "cnn", "run/1")
    _version(meta, "cnn", "run/2")
    assert _move(meta, "production", 1, None).revision == 1
    clock.advance(5)
    moved = _move(meta, "production", 2, 1)
    assert moved == Alias("model", "cnn", "production", 2, 2, clock.wall(), {})
    for stale in (None, 1, 3):
        with pytest.raises(Conflict):
            _move(meta, "production", 1, stale)
    with meta.read() as reader:
        assert reader.find_alias("model", "cnn", "production") == moved
        assert reader.aliases("model") == reader.aliases("model", "cnn") == [moved]
        assert reader.aliases("dataset") == []
        story = [event.body for event in reader.events(subject="model/cnn")]
    assert story[2:] == [
        {"alias": "production", "from": None, "to": 1, "reason": {}},
        {"alias": "production", "from": 1, "to": 2, "reason": {}},
    ]


def test_an_alias_that_is_not_there_cannot_be_swapped(meta: Meta) -> None:
    _version(meta, "cnn", "run/1")
    with pytest.raises(Conflict):
        _move(meta, "production", 1, 1)


def test_an_alias_points_only_to_what_exists(meta: Meta) -> None:
    _version(meta, "cnn", "run/1")
    with pytest.raises(NotFound):
        _move(meta, "production", 2, None)


@pytest.mark.parametrize("alias", ["3", "", "a b", "x:y", "a@b"])
def test_an_alias_that_would_read_as_something_else_is_refused(meta: Meta, alias: str) -> None:
    _version(meta, "cnn", "run/1")
    with pytest.raises(BadInput):
        _move(meta, alias, 1, None)


# evaluations and deployments


def _evaluation(key: str, evaluation_id: str, model: str = "cnn@1") -> Evaluation:
    return Evaluation(evaluation_id, key, "suite", model, "digits@1:test", A, True, 5.0, {"b": B})


def test_an_evaluation_is_committed_once_per_key(meta: Meta) -> None:
    first, again, other = (
        _evaluation("k1", "eval-1"),
        _evaluation("k1", "eval-2"),
        _evaluation("k2", "eval-3", "mlp@1"),
    )
    with meta.write() as writer:
        assert writer.add_evaluation(first, [C]) == first
        assert writer.add_evaluation(again, [D]) == first
        assert writer.add_evaluation(other, []) == other
        assert writer.referenced([A, B, C, D]) == {A, B, C}
    with meta.read() as reader:
        assert reader.find_evaluation("k1") == reader.get_evaluation("eval-1") == first
        assert reader.find_evaluation("k3") is None
        assert reader.evaluations() == [other, first]
        assert reader.evaluations(model="cnn@1") == [first]
        with pytest.raises(NotFound):
            reader.get_evaluation("eval-2")


def _deployment(**changes: object) -> Deployment:
    first = Deployment("digits", "cnn@production", "cnn@1", "pending", "up", 0, 0.0, 0.0)
    return replace(first, **changes)  # type: ignore[arg-type]


def test_a_deployment_changes_by_compare_and_swap(meta: Meta, clock: ManualClock) -> None:
    with meta.write() as writer:
        first = writer.put_deployment(_deployment(), None)
    began = clock.wall()
    assert (first.revision, first.created_at, first.updated_at) == (1, began, began)
    clock.advance(5)
    with meta.write() as writer:
        ready = writer.put_deployment(_deployment(state="ready", address="127.0.0.1:1"), 1)
    assert (ready.revision, ready.created_at, ready.updated_at) == (2, began, began + 5)
    for stale in (None, 1, 3):
        with pytest.raises(Conflict), meta.write() as writer:
            writer.put_deployment(_deployment(state="failed"), stale)
    with meta.read() as reader:
        assert reader.get_deployment("digits") == reader.find_deployment("digits") == ready
        assert reader.deployments() == [ready]
        assert [event.kind for event in reader.events()] == ["deployment.changed"] * 2


def test_an_unknown_deployment_offers_the_nearest(meta: Meta) -> None:
    with meta.write() as writer:
        writer.put_deployment(_deployment(), None)
    with meta.read() as reader, pytest.raises(NotFound) as caught:
        reader.get_deployment("digit")
    assert '"digits"' in caught.value.fix


# memories and references


def test_the_first_memory_of_a_key_stays(meta: Meta) -> None:
    with meta.write() as writer:
        writer.remember("k", "prepare", {"version": 1}, [A])
        writer.remember("k", "prepare", {"version": 2}, [B])
        assert writer.recall("k") == {"version": 1}
        assert writer.recall("other") is None
        assert writer.referenced([A, B]) == {A}


def test_memories_of_a_kind_are_listed_in_order_and_in_parts(
    meta: Meta, clock: ManualClock
) -> None:
    with meta.write() as writer:
        for key in "cab":
            writer.remember(key, "unit", {"key": key}, [])
            clock.advance(1)
        writer.remember("aa", "rows", {}, [])
        found = writer.memories("unit")
        assert [each.key for each in found] == ["a", "b", "c"]
        assert found[2] == Memory("c", "unit", {"key": "c"}, found[0].created_at - 1)
        assert writer.memories("unit", limit=2) == found[:2]
        assert writer.memories("unit", after="b") == found[2:]
        assert writer.memories("unit", after="c") == writer.memories("other") == []
        writer.forget(["b"])
        assert writer.memories("unit") == [found[0], found[2]]


def test_every_digest_that_a_row_holds_or_mentions_is_referenced(meta: Meta) -> None:
    with meta.write() as writer:
        run = Run("run-1", "x", "train", "running", {"deep": [{"blob": A}]}, source=B)
        writer.add_run(run, refs=[C])
        writer.change_run("run-1", result={"model": D})
        writer.add_version("dataset", "x", E, "p", {"statistics": F}, [])
        assert writer.referenced([A, B, C, D, E, F]) == {A, B, C, D, E, F}
        assert writer.referenced([]) == set()


def test_a_row_may_refer_to_more_later(meta: Meta) -> None:
    with meta.write() as writer:
        writer.refer("run/run-1", [A, B])
        writer.refer("run/run-1", [B, C])
    with meta.read() as reader:
        assert reader.referenced([A, B, C, D]) == {A, B, C}


def test_any_number_of_digests_may_be_asked_for(meta: Meta) -> None:
    many = [digest_bytes(b"%d" % n) for n in range(2500)]
    with meta.write() as writer:
        writer.refer("run/x", many[::5])
        assert writer.referenced(many) == set(many[::5])
