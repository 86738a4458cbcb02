"""What was constructed differently holds after a restore; all else is as it was saved."""

import pytest

torch = pytest.importorskip("torch")

from penstock.training.hyperparameters import constructed, put_changes  # noqa: E402

pytestmark = pytest.mark.torch


def made(lr, decay=0.9, steps=0, schedule=True):
    """Tracked objects after some steps: an AdamW, and a schedule that multiplies its rate."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))], lr=lr)
    objects = {"optimizer": optimizer}
    if schedule:
        objects["schedule"] = torch.optim.lr_scheduler.ExponentialLR(optimizer, decay)
    then = constructed(objects)
    for _ in range(steps):
        optimizer.step()
        if schedule:
            objects["schedule"].step()
    return objects, then


def restored(old, new):
    """The new objects with the old ones' state; what was changed."""
    (saved, then), (objects, now) = old, new
    for name, each in objects.items():
        each.load_state_dict(saved[name].state_dict())
    return objects, put_changes(objects, then, now)


def test_the_same_construction_changes_nothing():
    objects, changed = restored(made(0.1, steps=3), made(0.1))
    assert changed == []
    assert objects["optimizer"].param_groups[0]["lr"] == pytest.approx(0.1 * 0.9**3)


def test_another_rate_holds_exactly():
    objects, changed = restored(made(0.1, steps=3, schedule=False), made(0.03, schedule=False))
    assert changed == ["optimizer.lr: 0.1 -> 0.03"]
    assert objects["optimizer"].param_groups[0]["lr"] == 0.03


def test_under_a_schedule_the_rate_goes_on_in_proportion():
    objects, _ = restored(made(0.1, steps=3), made(0.02))
    schedule, group = objects["schedule"], objects["optimizer"].param_groups[0]
    assert group["lr"] == pytest.approx(0.02 * 0.9**3)
    assert schedule.base_lrs == [0.02]
    objects["optimizer"].step()
    schedule.step()
    assert group["lr"] == pytest.approx(0.02 * 0.9**4)


def test_of_a_checkpoint_that_does_not_tell_nothing_is_known_and_nothing_changed():
    objects, now = made(0.02, schedule=False)
    assert put_changes(objects, {}, now) == []
    assert objects["optimizer"].param_groups[0]["lr"] == 0.02
