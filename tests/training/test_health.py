"""Which gradients are applied, and what a run does when too many are not."""

import math

import pytest
import torch

from penstock.base.errors import BadInput, GradientsUnhealthy
from penstock.training.health import LEARN, Health

pytestmark = pytest.mark.torch


def learned(**options):
    """A judge that has seen steps of norm 1."""
    health = Health(**options)
    for step in range(1, LEARN + 1):
        assert health.judge("adam", 1.0)
        health.end_step(step)
    return health


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_never_applied(norm):
    assert not Health().judge("adam", norm)


def test_a_large_one_is_left_out_where_that_was_asked():
    assert learned().judge("adam", 1e9)
    health = learned(spikes=10)
    assert health.judge("adam", 9.9)
    assert not health.judge("adam", 30.0)
    assert health.judge("other", 30.0)  # has a usual of its own


def test_what_is_left_out_does_not_become_usual():
    health = learned(spikes=10, patience=0)
    for _ in range(200):
        assert not health.judge("adam", 30.0)
    grown = learned(spikes=10)
    assert all(grown.judge("adam", 1.0 + step / 20) for step in range(1000))


def test_patience_ends_with_an_error_that_names_the_steps():
    health = learned(patience=3)
    for step in (60, 61, 63, 64):
        if step == 63:
            assert health.judge("adam", 1.0)  # 62 was healthy: counted anew
            health.end_step(62)
        health.judge("adam", math.nan)
        health.end_step(step)
    health.judge("adam", math.nan)
    with pytest.raises(GradientsUnhealthy) as caught:
        health.end_step(65)
    assert caught.value.facts == {"first": 63, "until": 65}


def test_a_resumed_judge_judges_alike():
    health = learned(spikes=10, patience=3)
    health.judge("adam", math.nan)
    health.end_step(99)
    again = Health(spikes=10, patience=3)
    again.load(health.state())
    for each in (health, again):
        assert each.judge("adam", 7.0) and not each.judge("adam", 30.0)
    assert torch.equal(again.state()["usual"]["adam"][1], health.state()["usual"]["adam"][1])


@pytest.mark.parametrize("options", [{"spikes": 0.5}, {"spikes": math.nan}, {"patience": -1}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(BadInput):
        Health(**options)


# From step 34 on, the batches are poison, which shows only in a model that has seen one: as with
# a loss that explodes. Leaving out single steps does not help; going back before them does.
POISON = (
    (
        "run.backward(loss)",
        "bad = bool(wrong.item()) and run.global_step >= 33; "
        "run.backward(loss * float('nan') if bad else loss)",
    ),
    (
        "run.step(optimizer, clip=1.0)",
        "run.step(optimizer, clip=1.0); "
        "wrong.fill_(wrong.item() or run.global_step == 32); "
        "print('TOOK', run.rank, run.global_step + 1, flush=True)",
    ),
    ("optimizer = torch", "model.register_buffer('wrong', torch.zeros(())); wrong = model.wrong; "
     "optimizer = torch"),
    ("run.steps(train)", "run.steps(train, patience=5)"),
)  # fmt: skip


@pytest.mark.faults
def test_a_run_whose_gradients_stay_unhealthy_goes_back_and_leaves_the_steps_out(project):
    """Two ranks. The checkpoint of step 30 is good; 33 spoils the model, 34 to 38 show it."""
    project.edit(*POISON)
    out = project.run("base", "2")
    assert "unhealthy gradients since step 34: going back to step 30" in out
    window = {"after": 30, "first": 34, "until": 38}
    assert project.events("base", "window.left-out") == [{**window, "dropped": []}]
    assert [body["step"] for body in project.events("base", "attempt.resumed")] == [30]
    run = project.newest("base")
    assert run.state == "finished" and run.step == 80
    assert run.result["left_out"] == [window]
    for rank in (0, 1):
        took = [line.split() for line in project.log("base", f"rank-{rank}").splitlines()]
        steps = [int(words[2]) for words in took if words[:1] == ["TOOK"]]
        assert steps == [*range(1, 39), *range(39, 81)]  # the batches of 31 to 38 came once


@pytest.mark.long
def test_in_the_scripts_own_process_the_next_call_goes_back(project):
    project.edit(*POISON)
    assert "[gradients-unhealthy]" in project.run("base", "0", code=9)
    assert "resumed at step 30" in project.run("base", "0")
    run = project.newest("base")
    assert run.state == "finished" and run.result["left_out"][0]["until"] == 38


@pytest.mark.faults
@pytest.mark.long
def test_going_back_is_the_same_under_kills(project, dice):
    """Twice undisturbed would be equal; so is one whose ranks are killed before and after."""
    project.edit(*POISON)
    project.run("base", "2")
    script = project.start("hurt", "2")
    for step in sorted([dice.randrange(5, 33), dice.randrange(40, 75)]):
        project.until(f"step {step}", lambda at=step: project.committed("hurt") >= at // 10 * 10)
        project.kill("hurt", "rank")
    script.communicate(timeout=120)
    quiet, hurt = project.newest("base"), project.newest("hurt")
    assert hurt.state == "finished"
    assert hurt.result["weights"] == quiet.result["weights"]
    assert hurt.result["left_out"] == quiet.result["left_out"]
