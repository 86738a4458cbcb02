"""The step loop itself: what each call of `run` promises, mostly in this process (workers=0)."""

import importlib
import json
import sys
import textwrap

import pytest

from penstock.base.errors import RunStopped
from penstock.base.settings import load_settings
from penstock.data import prepare, read_manifest
from penstock.jobs.stores import open_stores
from penstock.training.launch import train

pytestmark = [pytest.mark.torch, pytest.mark.timeout(180)]

STEPS = 12
SOURCE = """
    import json, os, random, sys
    from pathlib import Path

    import numpy as np
    import torch
    import torch.nn.functional as F

    from penstock.checkpoints import weights_digest

    def points():
        points = np.random.default_rng(7).standard_normal((192, 6), dtype="float32")
        return {
            "id": [f"point-{number}" for number in range(192)],
            "point": points,
            "label": (points.sum(1) > 0).astype("int64"),
        }

    def once(config, name):
        path = Path(config["out"] + name)
        return not path.exists() and (path.touch() or True)

    def hits(model, batch):
        torch.rand(3), np.random.rand(), random.random()
        return (model(batch["point"]).argmax(1) == batch["label"]).float()

    def fit(run, config):
        def tell(**facts):
            if run.rank == 0:
                with Path(config["out"]).open("a") as out:
                    print(json.dumps(facts), file=out)

        net = torch.nn.Sequential(
            torch.nn.Linear(6, 16), torch.nn.Dropout(0.3), torch.nn.BatchNorm1d(16),
            torch.nn.Linear(16, 2),
        )
        model = run.distribute(net)
        net[2].eval()  # frozen by the user
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        train = run.data("points:train", batch_size=12, epochs=3)
        val = run.data("points:validation", batch_size=10, shuffle=False)
        run.track(model=model, optimizer=optimizer, train=train)
        for batch in run.steps(train):
            step = run.global_step + 1
            if step == config.get("stops_at") and once(config, "stopped"):
                raise KeyboardInterrupt
            if step == config.get("dies_at") and run.rank == 1 and once(config, "died"):
                os.kill(os.getpid(), 9)
            for name in config.get("evaluates", []):
                value = run.evaluate(lambda b: hits(model, b), val if name == "val" else train)
                tell(step=step, split=name, value=value, modes=[m.training for m in net.modules()])
            with run.autocast(config.get("precision", "fp32")):
                loss = F.cross_entropy(model(batch["point"]), batch["label"])
            if step in config.get("poisoned", []) and run.rank == run.world_size - 1:
                loss = loss * float("nan")
            run.backward(loss)
            taken = run.step(optimizer, clip=1.0)
            tell(step=step, taken=taken)
            if run.every(3):
                tell(every=step)
            if "scores" in config:
                run.log({"score": config["scores"][step - 1]})
                run.keep_best("score")
        if config.get("publishes"):
            sys.modules["onnx"] = None  # an ONNX file takes longer to make than all else here
            run.publish("points", model, example=val.example(2))
            if run.rank == 0 and once(config, "published"):
                os.kill(os.getpid(), 9)
        tell(weights=weights_digest(net.state_dict()))
    """


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    """The module with the training function."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "fits_of_test_run.py").write_text(textwrap.dedent(SOURCE))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("fits_of_test_run")
    del sys.modules["fits_of_test_run"]


@pytest.fixture(scope="module")
def stores(fits, tmp_path_factory):
    """A home with a dataset whose last batch to evaluate is divided by no number of ranks."""
    folder = tmp_path_factory.mktemp("home")
    settings = load_settings(folder=folder, environment={}, home=folder, keep_checkpoints=2)
    with open_stores(settings) as opened:
        splits = {"train": 0.25, "validation": 0.75}
        made = prepare(opened, "points", fits.points, key="id", splits=splits)
        last = read_manifest(opened.blobs, made.version.digest).split("validation").rows % 10
        assert last % 2 and last % 3, "ranks have equal parts of the last batch"
        yield opened


@pytest.fixture
def trained(fits, stores, tmp_path, request):
    """`trained(workers, **config)`: (the run's row, what rank 0 told); also over a stop."""

    def go(workers=0, **config):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        options = {"name": out.stem + request.node.name[:30].strip("[]"), "workers": workers}
        options |= {"checkpoint_every": 2, "threads": 1, "seed": 5}
        while True:
            try:
                run = train(stores, fits.fit, {**config, "out": str(out)}, **options).run
            except RunStopped:
                continue
            return run, [json.loads(line) for line in out.read_text().splitlines()]

    return go


def of(told, key):
    return [line[key] for line in told if key in line]


def checkpoints(stores, run):
    with stores.meta.read() as db:
        return db.checkpoints(run.id)


def test_an_evaluation_leaves_random_states_cursor_and_modes_as_they_were(trained):
    """Over another loader and over the one in use, in every step: the weights are the same."""
    _, alone = trained()
    _, told = trained(evaluates=["val", "train", "val"])
    assert of(told, "weights") == of(alone, "weights")
    assert of(told, "taken") == [True] * STEPS
    modes = of(told, "modes")
    assert modes == [modes[0]] * (3 * STEPS) and False in modes[0] and True in modes[0]
    values = of(told, "value")
    assert values[0::3] == values[2::3]  # the same model, the same split


def test_evaluations_are_equal_at_any_number_of_ranks_and_all_else_survives_a_death(
    trained, stores
):
    """At 2 ranks also: a gradient that is not finite on one rank is skipped on both and counted
    over attempts; a rank dies in a step, and one after it published."""
    first = {}
    for workers, harm in (
        (0, {}),
        (2, {"poisoned": [3, 11], "dies_at": 9, "publishes": True}),
        (3, {}),
    ):
        run, told = trained(workers, evaluates=["val"], **harm)
        assert run.state == "finished"
        first[workers] = of(told, "value")[0]
        if harm:
            skipped = {line["step"] for line in told if line.get("taken") is False}
            assert skipped == {3, 11} and run.result["skipped"] == 2
            with stores.meta.read() as db:
                assert [model.version for model in db.versions("model", "points")] == [1]
                assert len(db.attempts(run.id)) == 3
    assert 0 < first[0] < 1
    assert first == dict.fromkeys(first, first[0])


def test_the_best_checkpoint_is_kept_and_the_best_value_known_after_a_stop(trained, stores):
    scores = [0.1, 0.2, 0.9, 0.3, 0.2, 0.1, 0.4, 0.3, 0.2, 0.8, 0.1, 0.2]
    run, told = trained(scores=scores, stops_at=9)
    assert len(of(told, "taken")) == STEPS
    rows = checkpoints(stores, run)
    assert [row.step for row in rows] == [12, 10, 3]
    assert [row.best for row in rows] == [None, None, "score"]


def test_every_nth_checkpoint_and_the_pinned_ones_stay_over_a_stop(fits, stores, tmp_path):
    settings = stores.settings.model_copy(update={"keep_checkpoints_every": 5})
    options = {"name": "retained", "workers": 0, "checkpoint_every": 2, "threads": 1}
    config = {"out": str(tmp_path / "told"), "stops_at": 9}
    with open_stores(settings) as opened:
        with pytest.raises(RunStopped):
            train(opened, fits.fit, config, **options)
        with opened.meta.read() as db:
            run = db.newest_run("retained", "train")
        assert [row.step for row in checkpoints(opened, run)] == [8, 6]
        with opened.meta.write() as tx:
            tx.pin_checkpoint(run.id, 8, "before the stop")
        train(opened, fits.fit, config, **options)
        rows = checkpoints(opened, run)
    assert [row.step for row in rows] == [12, 10, 8, 6]
    assert [row.pinned for row in rows] == [None, None, "before the stop", None]


def test_every_counts_steps_over_all_attempts(trained):
    run, told = trained(stops_at=8)
    assert of(told, "every") == [3, 6, 9, 12]
    assert run.step == STEPS


def test_a_gradient_that_is_not_finite_is_skipped_and_counted_over_a_stop(trained):
    run, told = trained(poisoned=[2, 10], stops_at=7)
    assert of(told, "taken") == [step not in (2, 10) for step in range(1, STEPS + 1)]
    assert run.result["skipped"] == 2


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_ends_with_the_same_weights_after_a_stop(trained, precision):
    """fp16 begins with a scale that is too large: its first steps are left out, and not counted."""
    weights = {}
    for stops_at in (None, 7):
        run, told = trained(precision=precision, poisoned=[3], stops_at=stops_at)
        weights[stops_at] = told[-1]["weights"]
        assert run.result["skipped"] == (1 if precision == "bf16" else 0)
    assert weights[7] == weights[None]
    assert weights[7] != trained()[1][-1]["weights"]
