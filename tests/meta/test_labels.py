"""Tags, what names a version, and versions that nothing names any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.base.clock import ManualClock
from penstock.base.errors import BadInput, Conflict, NotFound, Refused
from penstock.base.hashing import digest_bytes
from penstock.meta import Meta, open_meta, schema
from penstock.records import Evaluation, Run, RunState, Tag, Version

A, B, C, D = (digest_bytes(bytes([n])) for n in range(4))


def _versions(meta: Meta, *digests: str, name: str = "digits") -> list[Version]:
    with meta.write() as writer:
        return [
            writer.add_version("dataset", name, digest, f"prepare/{name}/{n}", {}, [])
            for n, digest in enumerate(digests)
        ]


def test_a_tag_is_given_once_and_taken_away_once(meta: Meta, clock: ManualClock) -> None:
    _versions(meta, A, B)
    with meta.write() as writer:
        made = writer.tag("dataset", "digits", 1, "gold standard")
        clock.advance(5)
        assert writer.tag("dataset", "digits", 1, "gold standard") == made
        other = writer.tag("dataset", "digits", 2, "gold standard")
    assert made == Tag("dataset", "digits", 1, "gold standard", clock.wall() - 5)
    with meta.read() as reader:
        assert reader.tags("dataset") == reader.tags("dataset", "digits") == [made, other]
        assert reader.tags("model") == []
    with meta.write() as writer:
        assert writer.untag("dataset", "digits", 1, "gold standard") is True
        assert writer.untag("dataset", "digits", 1, "gold standard") is False
    with meta.read() as reader:
        assert reader.tags("dataset", "digits") == [other]
        kinds = [event.kind for event in reader.events(subject="dataset/digits")]
    assert kinds == ["version.added"] * 2 + ["version.tagged"] * 2 + ["version.untagged"]


@pytest.mark.parametrize("tag", ["", " ", " x", "two\nlines", "x" * 101])
def test_what_is_no_label_is_refused(meta: Meta, tag: str) -> None:
    _versions(meta, A)
    with meta.write() as writer, pytest.raises(BadInput):
        writer.tag("dataset", "digits", 1, tag)


def test_only_what_is_there_is_labelled_or_dropped(meta: Meta) -> None:
    _versions(meta, A)
    with meta.write() as writer:
        for call in (
            lambda: writer.tag("dataset", "digits", 2, "gold"),
            lambda: writer.untag("dataset", "digits", 2, "gold"),
            lambda: writer.drop_version("dataset", "digtis", 1),
        ):
            with pytest.raises(NotFound) as caught:
                call()
            assert "digits" in caught.value.fix


def test_who_names_a_version_is_known(meta: Meta) -> None:
    _versions(meta, A, B, C)
    _versions(meta, A, name="more-digits")
    data = {"digits:train": "digits@1:train", "v": "digits@1:test", "o": "more-digits@1"}
    with meta.write() as writer:
        writer.add_run(Run("run-1", "base", "train", "finished", {}, data=data))
        writer.add_evaluation(
            Evaluation("eval-1", "k", "suite", "cnn@4", "digits@2:test", D, True, 1.0), []
        )
        made = {"sources": ["digits@2", "digits@3:train"]}
        writer.add_version("dataset", "mix", D, "prepare/mix", made, [])
    with meta.read() as reader:
        assert reader.uses("dataset", "digits") == {
            1: ["run/run-1"],
            2: ["evaluation/eval-1", "dataset/mix@1"],
            3: ["dataset/mix@1"],
        }
        assert reader.uses("dataset", "more-digits") == {1: ["run/run-1"]}
        assert reader.uses("dataset", "digit_") == {}
        assert reader.uses("model", "cnn") == {4: ["evaluation/eval-1"]}


def test_a_version_that_nothing_names_goes_with_what_calls_remember_of_it(meta: Meta) -> None:
    _versions(meta, A, B, C)
    with meta.write() as writer:
        writer.remember("call", "dataset", {"manifest": A}, [A, D])
        assert writer.drop_version("dataset", "digits", 1).digest == A
        assert writer.referenced([A, B, C, D]) == {B, C}
        assert writer.recall("call") is None
        assert [v.version for v in writer.versions("dataset", "digits")] == [3, 2]
        new = writer.add_version("dataset", "digits", D, "prepare/digits/new", {}, [])
    assert new.version == 4
    with meta.read() as reader:
        dropped = [e.body for e in reader.events() if e.kind == "version.dropped"]
    assert dropped == [{"version": 1, "digest": A}]


def test_what_calls_remember_stays_while_another_version_is_the_same(meta: Meta) -> None:
    _versions(meta, A, B, A, C)
    with meta.write() as writer:
        writer.remember("call", "dataset", {"manifest": A}, [A])
        writer.drop_version("dataset", "digits", 1)
        assert writer.recall("call") == {"manifest": A}
        writer.drop_version("dataset", "digits", 3)
        assert writer.recall("call") is None
        assert writer.referenced([A]) == set()


def test_what_calls_remember_of_blobs_that_only_it_had_goes(meta: Meta) -> None:
    with meta.write() as writer:
        writer.add_version("dataset", "digits", A, "p/1", {}, [C])
        writer.add_version("dataset", "digits", B, "p/2", {}, [D])
        writer.remember("shard of the first", "map", {"digest": C}, [])
        writer.remember("shard of both", "map", {"digest": D}, [])
        writer.remember("unit", "unit", {"x": 1}, [])
        writer.drop_version("dataset", "digits", 1)
        assert writer.recall("shard of the first") is None
        assert writer.recall("shard of both") == {"digest": D}
        assert writer.referenced([A, B, C, D]) == {B, D}
        assert writer.forget(["unit", "never there", "shard of both"]) == 2
        assert writer.recall("unit") is None
        assert writer.referenced([D]) == {D}, "the version has it still"


@pytest.mark.parametrize("state", ["finished", "failed", "stopped"])
def test_a_map_that_ended_lets_go_of_its_units(meta: Meta, state: RunState) -> None:
    with meta.write() as writer:
        writer.add_run(Run("run-1", "x", "prepare", "running", {"blob": A}, source=B))
        writer.add_units("run-1", {"u": {}})
        writer.finish_units("run-1", {"u": {"blob": C}}, [D])
        with pytest.raises(Conflict):
            writer.drop_units("run-1")
        writer.change_run("run-1", state=state)
        assert writer.referenced([A, B, C, D]) == {A, B, C, D}
        writer.drop_units("run-1")
        writer.drop_units("run-1")
        assert writer.referenced([A, B, C, D]) == {B}
        assert writer.units("run-1") == []
        assert writer.get_run("run-1").spec == {"blob": A}


@pytest.mark.parametrize("why", ["newest", "alias", "tag", "run", "dataset"])
def test_a_version_that_something_needs_is_not_dropped(meta: Meta, why: str) -> None:
    _versions(meta, A, B)
    number = 2 if why == "newest" else 1
    with meta.write() as writer:
        if why == "alias":
            writer.move_alias("dataset", "digits", "stable", 1, None)
        if why == "tag":
            writer.tag("dataset", "digits", 1, "gold")
        if why == "run":
            writer.add_run(Run("run-1", "x", "train", "failed", {}, data={"digits": "digits@1"}))
        if why == "dataset":
            writer.add_version("dataset", "mix", D, "p", {"sources": ["digits@1"]}, [])
        with pytest.raises(Refused, match=why):
            writer.drop_version("dataset", "digits", number)
    with meta.read() as reader:
        assert len(reader.versions("dataset", "digits")) == 2
        assert reader.referenced([A, B]) == {A, B}


def test_a_home_of_the_first_schema_gets_its_tags(tmp_path: Path) -> None:
    from sqlalchemy import create_engine, text

    path = tmp_path / "meta.db"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        schema.migrate(connection, "0001")
        connection.execute(
            text(
                "INSERT INTO versions (kind, name, version, digest, producer, created_at, summary)"
                f" VALUES ('dataset', 'digits', 1, '{A}', 'p', 1.0, '{{}}')"
            )
        )
    engine.dispose()
    assert schema.found_in(path) == "0001"
    store = open_meta(f"sqlite:///{path}")
    with store.write() as writer:
        assert writer.get_version("dataset", "digits").digest == A
        writer.tag("dataset", "digits", 1, "old but good")
    store.close()
    assert schema.found_in(path) == schema.HEAD
