from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from penstock.base.errors import BadInput, Conflict, NotFound, Refused
from penstock.records import Evaluation
from penstock.registry import promote

FAILED = {"gate": "accuracy at least 0.95", "outcome": "failed", "says": "accuracy 0.110 is below"}
UNSURE = {"gate": "…", "outcome": "undecided", "says": "about 900 samples would tell"}


@pytest.fixture
def versions(stores):
    """Three versions of one model."""
    with stores.meta.write() as meta:
        return [
            meta.add_version("model", "digits-cnn", stores.blobs.put(b"%d" % n), f"run/{n}", {}, [])
            for n in range(3)
        ]


def evaluated(stores, model, passed=True, gates=(), baseline=None):
    summary = {"gates": list(gates), "baseline": baseline}
    with stores.meta.write() as meta:
        number = len(meta.evaluations(limit=1000))
        made = Evaluation(
            f"eval-{number}", f"key-{number}", "s", model, "digits@1:test",
            stores.blobs.put(b"{}"), passed, meta.now(), summary,
        )  # fmt: skip
        return meta.add_evaluation(made, [])


def moves(stores):
    with stores.meta.read() as meta:
        return [event.body for event in meta.events() if event.kind == "alias.moved"]


def test_a_passing_evaluation_moves_the_alias_and_says_why(stores, versions):
    first, second = evaluated(stores, "digits-cnn@1"), evaluated(stores, "digits-cnn@2")
    alias = promote(stores, "digits-cnn@1", "production", first)
    assert (alias.version, alias.reason["evaluation"]) == (1, first.id)
    alias = promote(stores, "digits-cnn@2", "production", second)
    assert alias.version == 2
    told = [(move["from"], move["to"], move["reason"]["evaluation"]) for move in moves(stores)]
    assert told == [(None, 1, first.id), (1, 2, second.id)]


def test_evidence_may_be_a_report_a_record_or_an_id(stores, versions):
    proof = evaluated(stores, "digits-cnn@1")
    for alias, evidence in [
        ("a", SimpleNamespace(evaluation=proof)),
        ("b", proof),
        ("c", proof.id),
    ]:
        assert promote(stores, versions[0], alias, evidence).version == 1


def test_promoting_again_changes_nothing(stores, versions):
    proof = evaluated(stores, "digits-cnn@1")
    once = promote(stores, "digits-cnn@1", "production", proof)
    assert promote(stores, "digits-cnn@1", "production", proof) == once
    assert len(moves(stores)) == 1


def test_a_failed_gate_blocks_and_is_named(stores, versions):
    proof = evaluated(stores, "digits-cnn@1", passed=False, gates=[FAILED, UNSURE])
    with pytest.raises(Refused) as caught:
        promote(stores, "digits-cnn@1", "production", proof)
    assert "accuracy 0.110 is below" in caught.value.what
    assert "about 900 samples" in caught.value.what
    assert caught.value.facts["gates"] == [FAILED, UNSURE]
    assert moves(stores) == []


def test_a_suite_without_gates_is_no_evidence(stores, versions):
    with pytest.raises(Refused, match="has no gate"):
        promote(
            stores, "digits-cnn@1", "production", evaluated(stores, "digits-cnn@1", passed=False)
        )


def test_an_object_cannot_claim_a_verdict_that_the_row_does_not_have(stores, versions):
    from dataclasses import replace

    proof = replace(evaluated(stores, "digits-cnn@1", passed=False, gates=[FAILED]), passed=True)
    with pytest.raises(Refused, match="does not become production"):
        promote(stores, "digits-cnn@1", "production", SimpleNamespace(evaluation=proof))


def test_evidence_of_another_version_is_refused(stores, versions):
    with pytest.raises(Refused, match=r"is of digits-cnn@1, not of digits-cnn@2"):
        promote(stores, "digits-cnn@2", "production", evaluated(stores, "digits-cnn@1"))


def test_a_comparison_with_what_the_alias_was_is_refused(stores, versions):
    asked = {"asked": "digits-cnn@production", "resolved": None, "why": "not yet"}
    stale = evaluated(stores, "digits-cnn@2", baseline=asked)
    fresh = evaluated(stores, "digits-cnn@2", baseline={**asked, "resolved": "digits-cnn@1"})
    elsewhere = evaluated(stores, "digits-cnn@3", baseline={**asked, "asked": "digits-cnn@staging"})
    promote(stores, "digits-cnn@1", "production", evaluated(stores, "digits-cnn@1"))
    with pytest.raises(Refused, match="production is digits-cnn@1 now"):
        promote(stores, "digits-cnn@2", "production", stale)
    assert promote(stores, "digits-cnn@2", "production", fresh).version == 2
    assert promote(stores, "digits-cnn@3", "production", elsewhere).version == 3


@pytest.mark.parametrize(("alias", "said"), [("7", "Numbers are versions"), ("a b", "cannot be")])
def test_a_bad_alias_is_refused(stores, versions, alias, said):
    with pytest.raises(BadInput, match=said):
        promote(stores, "digits-cnn@1", alias, evaluated(stores, "digits-cnn@1"))


@pytest.mark.parametrize(
    ("reference", "evidence", "error", "said"),
    [
        ("digit-cnn@1", "eval-0", NotFound, "digits-cnn"),
        ("digits-cnn@9", "eval-0", NotFound, "digits-cnn"),
        ("digits-cnn@1", "eval-nowhere", NotFound, "eval-nowhere"),
        ("digits-cnn@1", None, BadInput, "not NoneType"),
        ("digits-cnn@1", True, BadInput, "not bool"),
    ],
)
def test_what_does_not_exist_is_one_clear_error(stores, versions, reference, evidence, error, said):
    evaluated(stores, "digits-cnn@1")
    with pytest.raises(error, match=said):
        promote(stores, reference, "production", evidence)


def test_of_promotions_at_once_each_move_starts_where_the_last_one_ended(stores, versions):
    proofs = {n: evaluated(stores, f"digits-cnn@{n}") for n in (1, 2, 3)}
    lost = []

    def run(number):
        try:
            promote(stores, f"digits-cnn@{number}", "production", proofs[number])
        except Conflict as conflict:
            lost.append(conflict)

    threads = [threading.Thread(target=run, args=(n,)) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = moves(stores)
    assert len(told) + len(lost) == 3 and told
    assert [move["from"] for move in told] == [None, *(move["to"] for move in told[:-1])]
    with stores.meta.read() as meta:
        assert meta.find_alias("model", "digits-cnn", "production").version == told[-1]["to"]
