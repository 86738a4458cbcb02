from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from penstock.base.errors import BadInput, Damaged, LeaseHeld, NotFound, Refused
from penstock.data import prepare, read_manifest, read_split
from penstock.evaluation import at_least, classification, evaluate, predictions, report_of
from penstock.evaluation.statistics import paired_difference, wilson
from penstock.jobs.stores import open_stores
from penstock.registry import load, package, promote

PRODUCTION = "good@production"


def counted(stores):
    """How many evaluations were committed, and how many maps ran."""
    with stores.meta.read() as meta:
        added = [event for event in meta.events() if event.kind == "evaluation.added"]
        return len(added), len(meta.runs(limit=1000))


def rows_of(stores, split="test"):
    with stores.meta.read() as meta:
        version = meta.get_version("dataset", "digits")
    return read_split(stores.blobs, read_manifest(stores.blobs, version.digest), split)


def images_of(table):
    return np.array(table["image"].to_pylist(), np.float32).reshape(-1, 8, 8)


def test_the_report_is_what_the_model_does_on_the_split(stores, suite):
    report = evaluate(stores, suite, "good@1", baseline=PRODUCTION)
    rows = rows_of(stores)
    scores = load(stores, "good@1")(images_of(rows))
    labels = rows["label"].to_numpy()
    right = int((scores.argmax(1) == labels).sum())
    found = report.metrics["accuracy"]
    assert (found.value, found.n) == (right / len(labels), len(labels))
    assert (found.low, found.high) == wilson(right, len(labels))
    loss = nn.functional.cross_entropy(torch.tensor(scores), torch.tensor(labels))
    assert report.metrics["loss"].value == pytest.approx(float(loss), rel=1e-5)
    assert report.metrics["loss"].low < float(loss) < report.metrics["loss"].high
    assert report.passed and report.evaluation.passed
    assert [gate.outcome for gate in report.gates] == ["passed", "skipped"]
    assert not report.reused and "never evaluated" in report.why
    assert report.evaluation.dataset == "digits@1:test" and report.evaluation.model == "good@1"


def test_every_sample_has_its_prediction(stores, suite):
    report = evaluate(stores, replace(suite, slices=("label", "half")), "good@1")
    rows, table = rows_of(stores), predictions(stores, report)
    assert table["key"].to_pylist() == rows["key"].to_pylist()
    assert table["row"].to_pylist() == list(range(len(rows)))
    assert table["label"].equals(rows["label"]) and table["slice.half"].equals(rows["half"])
    scores = torch.tensor(load(stores, "good@1")(images_of(rows)))
    assert table["predicted"].to_pylist() == scores.argmax(1).tolist()
    assert np.allclose(table["score"].to_numpy(), scores.softmax(1).max(1).values, atol=1e-6)
    assert table.schema.field("score").type == pa.float32()
    assert predictions(stores, report.evaluation.id).equals(table)


def test_slices_part_the_whole_and_the_worst_is_named(stores, suite):
    report = evaluate(stores, replace(suite, slices=("label", "half")), "good@1")
    table = predictions(stores, report)
    for column, values in (("label", list(range(10))), ("half", ["even", "odd"])):
        slices = [each for each in report.slices if each.column == column]
        assert [each.value for each in slices] == values
        assert sum(each.n for each in slices) == report.metrics["accuracy"].n
        for each in slices:
            chosen = np.array(table[f"slice.{column}"].to_pylist()) == each.value
            assert each.metrics["accuracy"].value == table["correct"].to_numpy()[chosen].mean()
    lowest = min(each.metrics["accuracy"].value for each in report.slices)
    assert report.worst.metrics["accuracy"].value == lowest
    assert f"worst: {report.worst} {lowest:.3f} [" in report.line()


def test_the_same_question_is_answered_from_memory(stores, suite):
    first = evaluate(stores, suite, "good@1", baseline=PRODUCTION)
    before = counted(stores)
    again = evaluate(stores, suite, "good@1", baseline=PRODUCTION)
    assert again.reused and "nothing changed" in again.why
    assert again.evaluation == first.evaluation and again.findings == first.findings
    assert report_of(stores, first.evaluation.id).findings == first.findings
    assert counted(stores) == before


def test_another_gate_is_another_verdict_without_a_second_pass(stores, suite):
    evaluate(stores, suite, "good@1")
    committed, maps = counted(stores)
    report = evaluate(stores, replace(suite, gates=(at_least("accuracy", 0.999),)), "good@1")
    assert not report.reused and not report.passed and "suite changed" in report.why
    assert counted(stores) == (committed + 1, maps)


def test_fresh_computes_again_and_finds_the_same(stores, suite):
    first = evaluate(stores, suite, "good@1")
    committed, maps = counted(stores)
    again = evaluate(stores, suite, "good@1", fresh=True)
    assert not again.reused and again.evaluation.id != first.evaluation.id
    assert again.evaluation.digest == first.evaluation.digest
    assert counted(stores) == (committed + 1, maps + 1)


def test_a_bad_model_is_blocked(stores, suite):
    report = evaluate(stores, suite, "bad@1", baseline="bad@production")
    assert not report.passed and report.gates[0].outcome == "failed"
    with pytest.raises(Refused, match=r"is below 0\.9"):
        promote(stores, "bad@1", "production", report)


def test_from_the_first_model_to_its_successor(stores, suite):
    first = evaluate(stores, suite, "good@1", baseline=PRODUCTION)
    assert "there is no good@production yet" in first.gates[1].says
    promote(stores, "good@1", "production", first)
    again = evaluate(stores, suite, "good@1", baseline=PRODUCTION)
    assert again.reused, "a model is not compared with itself: the answer is the first one"
    assert promote(stores, "good@1", "production", again).version == 1
    second = evaluate(stores, suite, "good@2", baseline=PRODUCTION)
    assert second.findings.baseline.resolved == "good@1"
    ours, theirs = predictions(stores, second), predictions(stores, first)
    right, other = (each["correct"].to_numpy() for each in (ours, theirs))
    gained, lost = int((right & ~other).sum()), int((other & ~right).sum())
    found = second.gates[1].estimate
    assert (found.low, found.high) == paired_difference(gained, lost, len(right))
    assert second.passed and promote(stores, "good@2", "production", second).version == 2


def test_a_baseline_left_out_does_not_open_the_gate(stores, suite):
    report = evaluate(stores, suite, "good@1")
    assert [gate.outcome for gate in report.gates] == ["passed", "undecided"]
    assert not report.passed and "no baseline was given" in report.gates[1].says


def test_units_do_not_change_the_result(stores, suite, monkeypatch):
    whole = evaluate(stores, replace(suite, batch_size=32), "good@1")
    monkeypatch.setattr("penstock.evaluation.forecast._UNIT_ROWS", 64)
    parts = evaluate(stores, replace(suite, batch_size=32), "good@1", fresh=True)
    assert len(parts.findings.predictions) > len(whole.findings.predictions)
    assert parts.metrics["accuracy"] == whole.metrics["accuracy"]
    assert parts.metrics["loss"].value == pytest.approx(whole.metrics["loss"].value)
    assert [str(each) for each in parts.slices] == [str(each) for each in whole.slices]
    assert predictions(stores, parts).equals(predictions(stores, whole))


@pytest.mark.torch
def test_workers_find_what_one_process_finds(stores, suite, monkeypatch):
    monkeypatch.setattr("penstock.evaluation.forecast._UNIT_ROWS", 64)
    suite = replace(suite, batch_size=32)
    alone = evaluate(stores, suite, "good@1")
    done = []
    many = evaluate(
        stores, suite, "good@1", workers=2, fresh=True, on_progress=lambda *at: done.append(at)
    )
    assert many.findings == alone.findings and many.evaluation.digest == alone.evaluation.digest
    units = len(alone.findings.predictions)
    assert units > 2 and done[-1] == (units, units)


@pytest.mark.torch
def test_a_label_that_is_no_class_is_named(stores, suite):
    packed = package(nn.Flatten(), {"input": torch.rand(2, 8)}, stores.blobs, name="few")
    with stores.meta.write() as meta:
        meta.add_version("model", "few", packed.digest, "run/d", {}, packed.refs)

    def make_few():
        return {
            "input": np.zeros((50, 8), np.float32),
            "label": np.array([0] * 49 + [8]),
            "key": np.arange(50),
        }

    made = prepare(stores, "few", make_few, key="key", splits={"test": 1.0})
    asked = replace(suite, data=f"{made.reference}:test", metrics=classification())
    for workers in (0, 1):
        with pytest.raises(BadInput, match="of sample 49 is 8, but the model knows classes 0 to 7"):
            evaluate(stores, asked, "few", workers=workers)


def test_two_at_once_commit_one_evaluation(stores, suite):
    """Whoever comes second while the first computes is told so; nothing is computed twice."""
    found = []

    def run():
        try:
            found.append(evaluate(stores, suite, "good@1").evaluation.id)
        except LeaseHeld:
            found.append(None)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = evaluate(stores, suite, "good@1")
    assert again.reused and len(found) == 3
    assert set(found) - {None} == {again.evaluation.id}
    assert counted(stores)[0] == 1


def test_scores_that_are_not_finite_are_wrong_and_said(stores, suite):
    class Broken(nn.Module):
        def forward(self, image):
            flat = image.flatten(1)
            return torch.where(flat[:, :10] > 0.5, torch.nan, flat[:, 10:20])

    packed = package(Broken(), {"image": torch.rand(2, 8, 8)}, stores.blobs, name="broken")
    with stores.meta.write() as meta:
        meta.add_version("model", "broken", packed.digest, "run/d", {}, packed.refs)
    report = evaluate(stores, suite, "broken")
    assert report.findings.not_finite > 0 and "scores not finite" in report.line()
    table = predictions(stores, report)
    assert table["loss"].null_count == report.findings.not_finite
    assert table["predicted"].to_pylist().count(-1) == report.findings.not_finite


@pytest.mark.parametrize(
    ("model", "changes", "error", "said"),
    [
        ("god@1", {}, NotFound, "good"),
        ("good@7", {}, NotFound, "good"),
        ("good@1", {"data": "digit:test"}, NotFound, "digits"),
        ("good@1", {"data": "digits:tests"}, NotFound, "test"),
        ("good@1", {"data": "digits"}, BadInput, "digits:validation"),
        ("good@1", {"metrics": classification("lable", ["image"])}, BadInput, "label"),
        ("good@1", {"metrics": classification("half", ["image"])}, BadInput, "not a whole number"),
        ("good@1", {"metrics": classification("label", ["imag"])}, BadInput, "image"),
        ("good@1", {"metrics": classification("label", ["weight"])}, BadInput, 'takes "image"'),
        ("good@1", {"metrics": classification("label", ["image", "weight"])}, BadInput, "2 inputs"),
        ("good@1", {"metrics": classification(output="logits")}, BadInput, 'no output "logits"'),
        ("good@1", {"slices": ("labels",)}, BadInput, 'Did you mean "label"'),
        ("good@1", {"slices": ("weight",)}, BadInput, "put others into bins"),
        ("good@1", {"slices": ("image",)}, BadInput, "slices by"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(stores, suite, model, changes, error, said):
    before = counted(stores)
    with pytest.raises(error) as caught:
        evaluate(stores, replace(suite, **changes), model)
    assert said in str(caught.value) and caught.value.fix
    assert counted(stores) == before


def test_a_baseline_of_no_model_is_a_mistake_and_not_a_start(stores, suite):
    for baseline in ("god@production", "good@9"):
        with pytest.raises(NotFound):
            evaluate(stores, suite, "good@1", baseline=baseline)


def test_a_corrupt_shard_is_named(stores, suite):
    with stores.meta.read() as meta:
        version = meta.get_version("dataset", "digits")
    shard = read_manifest(stores.blobs, version.digest).shards_of("test")[0]
    path = stores.blobs.path(shard.digest)
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(Damaged, match='shard 0 of split "test"'):
        evaluate(stores, suite, "good@1")
    assert counted(stores)[0] == 0


@pytest.mark.torch
def test_several_machines_find_what_one_finds(stores, suite, monkeypatch, tmp_path):
    monkeypatch.setattr("penstock.evaluation.forecast._UNIT_ROWS", 64)
    monkeypatch.setenv("PENSTOCK_NODE_HOME", str(tmp_path / "nodes"))
    suite = replace(suite, batch_size=32)
    alone = evaluate(stores, suite, "good@1")
    changed = stores.settings.model_copy(update={"engine": "hosts:2"})
    with open_stores(changed) as there:
        many = evaluate(there, suite, "good@1", workers=2, fresh=True)
    assert many.findings == alone.findings and many.evaluation.digest == alone.evaluation.digest
