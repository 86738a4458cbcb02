from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from penstock.base.errors import NotFound
from penstock.data import prepare
from penstock.records import Evaluation, Run
from penstock.registry import package, promote, why


def make_points():
    return {"x": np.arange(40, dtype=np.float32), "key": [f"p{n}" for n in range(40)]}


def make_more():
    return {"x": np.arange(50, dtype=np.float32), "key": [f"m{n}" for n in range(50)]}


@pytest.fixture
def life(stores, net):
    """points@1 -> run "base" -> digits-cnn@1 -> evaluation -> production."""
    data = prepare(stores, "points", make_points, key="key").version
    run = Run(
        "run-1", "base", "train", "finished", {"entry": "train:fit"},
        data={"points:train": f"{data.reference}:train", "points:test": "points@1:test"},
    )  # fmt: skip
    lineage = {"run": run.id, "data": run.data, "step": 400}
    made = package(net, torch.rand(2, 8, 8), stores.blobs, name="digits-cnn", lineage=lineage)
    with stores.meta.write() as meta:
        meta.add_run(run)
        meta.add_version("model", "digits-cnn", made.digest, "run/run-1", {}, made.refs)
        proof = Evaluation(
            "eval-1", "key", "digits", "digits-cnn@1", "points@1:test",
            stores.blobs.put(b"{}"), True, meta.now(), {"metrics": {}},
        )  # fmt: skip
        meta.add_evaluation(proof, [])
    promote(stores, "digits-cnn@1", "production", "eval-1")
    return stores


def traced(stores, reference):
    with stores.meta.read() as meta:
        return why(meta, stores.blobs, reference)


def test_why_follows_the_alias_down_to_the_function_that_made_the_data(life):
    found = traced(life, "digits-cnn@production")
    assert [(step.what, step.name) for step in found.steps] == [
        ("alias", "production"),
        ("model", "digits-cnn@1"),
        ("evaluation", "eval-1"),
        ("run", "base"),
        ("dataset", "points@1"),
        ("function", "make_points"),
    ]
    commit = found.steps[-1].facts["git"]
    said = f"make_points (git {commit})" if commit else "make_points"
    assert found.line() == f"production <- base <- points@1 <- {said}"
    assert found.steps[2].facts["suite"] == "digits" and found.steps[3].facts["step"] == 400


def test_without_an_alias_the_line_begins_with_the_version(life):
    assert traced(life, "digits-cnn").line().startswith("digits-cnn@1 <- base <- points@1")


def test_several_datasets_stand_side_by_side(life):
    other = prepare(life, "more", make_more, key="key").version
    with life.meta.write() as meta:
        meta.change_run("run-1", data={"points": "points@1", "more": other.reference})
    line = traced(life, "digits-cnn@production").line()
    assert "base <- more@1 + points@1 <- make_more" in line and "+ make_points" in line


def test_what_the_row_of_a_run_forgot_the_package_still_tells(stores, net):
    prepare(stores, "points", make_points, key="key")
    lineage = {"run": "run-9", "data": {"points:train": "points@1:train", "gone": "gone@4"}}
    made = package(net, torch.rand(2, 8, 8), stores.blobs, name="digits-cnn", lineage=lineage)
    with stores.meta.write() as meta:
        meta.add_version("model", "digits-cnn", made.digest, "run/run-9", {}, made.refs)
    assert traced(stores, "digits-cnn").line().startswith("digits-cnn@1 <- run-9 <- points@1 <- ")


def test_an_unknown_reference_offers_the_nearest(life):
    with pytest.raises(NotFound, match="digits-cnn"):
        traced(life, "digit-cnn@production")
    with pytest.raises(NotFound, match="production"):
        traced(life, "digits-cnn@prodution")


def test_what_a_run_was_forked_from_and_its_first_weights_follow_it(life):
    with life.meta.write() as meta:
        first = meta.get_run("run-1")
        warm = {"init_from": {"asked": "digits-cnn", "kind": "model", "reference": "digits-cnn@1"}}
        meta.add_run(replace(first, id="run-2", name="warm", spec={**first.spec, **warm}))
        forked = {"forked_from": {"run": "run-2", "name": "warm", "step": 20}}
        run = replace(first, id="run-3", name="warm-fork-1", spec={**first.spec, **warm, **forked})
        meta.add_run(run)
        digest = meta.get_version("model", "digits-cnn@1").digest
        meta.add_version("model", "digits-cnn", digest, "run/run-3/digits-cnn", {}, [])
    found = traced(life, "digits-cnn@2")
    said = "digits-cnn@2 <- warm-fork-1 <- warm@20 <- digits-cnn@1 <- base <- points@1"
    assert found.line().startswith(said)
    facts = {step.name: step.facts for step in found.steps}
    assert facts["warm@20"]["id"] == "run-2" and facts["warm@20"]["how"] == "forked"
    assert facts["digits-cnn@1"]["how"] == "init_from"
    assert [step.name for step in found.steps if step.what == "dataset"] == ["points@1"]


def test_of_a_run_that_is_gone_the_fork_still_tells(life):
    with life.meta.write() as meta:
        first = meta.get_run("run-1")
        forked = {"forked_from": {"run": "run-0", "name": "gone", "step": 20}}
        meta.change_run("run-1", spec={**first.spec, **forked})
    assert (
        "production <- base <- gone@20 <- points@1" in traced(life, "digits-cnn@production").line()
    )
