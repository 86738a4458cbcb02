"""A home whose rows lie in PostgreSQL: nothing else of a run is different."""

import signal
import time

import pytest
from tests.postgres import Server

pytestmark = [pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(180)]


def test_a_rank_a_controller_and_the_database_die_and_no_bit_of_the_weights_changes(
    made, undisturbed
):
    server = Server()
    try:
        project = made(meta=server.fresh())
        project.edit(("pause: float = 0.01", "pause: float = 0.05"))
        script = project.start("run", "2")
        project.until("step 10", lambda: project.committed("run") >= 10)
        project.kill("run", "rank")
        project.until("step 20", lambda: project.committed("run") >= 20)
        project.kill("run", "controller")
        project.until("step 30", lambda: project.committed("run") >= 30)
        server.stop(signal.SIGQUIT)
        time.sleep(1)
        server.start()
        out, _ = script.communicate(timeout=120)
        assert script.returncode == 0, out
        run = project.newest("run")
        assert run.state == "finished" and run.result["weights"] == undisturbed(2)
        assert not (project.home / "meta.db").exists()
        kinds = [event.kind for event in events_of(project, run)]
        assert kinds.count("run.finished") == kinds.count("controller.adopted") == 1
        project.nothing_left()
        project.close()
    finally:
        server.close()


@pytest.mark.long
def test_a_database_that_is_away_for_half_a_minute_ends_no_attempt(made, undisturbed):
    server = Server()
    try:
        project = made(meta=server.fresh())
        project.edit(("pause: float = 0.01", "pause: float = 0.05"))
        script = project.start("run", "2")
        project.until("step 10", lambda: project.committed("run") >= 10)
        server.stop(signal.SIGQUIT)
        time.sleep(30)
        server.start()
        out, _ = script.communicate(timeout=120)
        assert script.returncode == 0, out
        assert "waiting: the meta store" in out
        run = project.newest("run")
        assert run.state == "finished" and run.result["weights"] == undisturbed(2)
        kinds = [event.kind for event in events_of(project, run)]
        assert kinds.count("attempt.started") == 1
        project.nothing_left()
        project.close()
    finally:
        server.close()


def events_of(project, run):
    with project.stores() as stores, stores.meta.read() as db:
        return db.events(subject=f"run/{run.id}", limit=10_000)


def test_scripts_at_one_moment_have_one_run_of_a_name(made, postgres):
    """What a home on one machine's disk has by its lock."""
    project = made(meta=postgres.fresh())
    project.edit(("epochs=config.epochs", "epochs=2"))
    project.run("first", "1")  # prepares the data
    scripts = [project.start("run", "1") for _ in range(3)]
    outs = [script.communicate(timeout=120)[0] for script in scripts]
    codes = sorted(script.returncode for script in scripts)
    assert codes[0] == 0 and set(codes) <= {0, 4}, outs  # 4: it is going on already
    with project.stores() as stores, stores.meta.read() as db:
        found = db.runs(name="run")
    assert len(found) == 1 and found[0].state == "finished"
