"""What is tracked beside model and optimiser, and changes what is computed, is as it was."""

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(180)]

OBJECTS = """
    class Curriculum:
        def __init__(self):
            self.seen, self.draws = 0, []

        def factor(self):
            self.seen += 1
            self.draws = [*self.draws[-4:], self.seen**0.5]
            return 1.0 + 0.1 * (self.seen % 7) + 0.01 * sum(self.draws)

        def state_dict(self):
            return {"seen": self.seen, "draws": self.draws}

        def load_state_dict(self, state):
            self.seen, self.draws = state["seen"], state["draws"]

    def fit("""


def test_a_scheduler_a_scaler_and_an_object_of_the_users_own_go_on_exactly(made):
    """The undisturbed twin is a run of the same project."""
    project = made()
    project.edit(
        ("\ndef fit(", OBJECTS.replace("\n    ", "\n")),
        ("pause: float = 0.01", "pause: float = 0.03"),
        (
            "    run.track(model=model, optimizer=optimizer, train=train)",
            "    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 13)\n"
            "    scaler = torch.amp.GradScaler('cpu', init_scale=8.0, growth_interval=9)\n"
            "    lessons = Curriculum()\n"
            "    run.track(model=model, optimizer=optimizer, train=train, scheduler=scheduler,\n"
            "              scaler=scaler, lessons=lessons)",
        ),
        (
            "        run.backward(loss)\n        run.step(optimizer, clip=1.0)",
            "        loss = loss * lessons.factor()\n"
            "        run.backward(scaler.scale(loss))\n"
            "        scaler.unscale_(optimizer)\n"
            "        scaler.update()\n"
            "        run.step(optimizer, clip=scaler.get_scale() / 64)\n"
            "        scheduler.step()",
        ),
    )
    project.run("twin", "2")
    script = project.start("run", "2")
    for step in (10, 40):
        project.until(f"step {step}", lambda step=step: project.committed("run") >= step)
        project.kill("run", "rank", only=project.pids("run", "rank")[0])
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    run, twin = project.newest("run"), project.newest("twin")
    assert run.state == "finished" and run.result["weights"] == twin.result["weights"]
    assert len(project.events("run", "attempt.started")) == 3
