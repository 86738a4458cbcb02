"""What a controller knows: events kept until acknowledged, gathered per attempt, owners told."""

import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base import ids, process
from penstock.base.errors import BadInput, Conflict
from penstock.base.settings import load_settings
from penstock.jobs import control
from penstock.jobs.agent.outbox import Outbox
from penstock.jobs.controller import Controller
from penstock.jobs.facts import Facts
from penstock.jobs.holding import Holding
from penstock.jobs.stores import open_stores, pinned
from penstock.records import Run


def kinds(events):
    return [next(key for key in event if key != "seq") for event in events]


def test_events_stay_until_they_are_acknowledged():
    outbox = Outbox()
    for kind in ("a", "b", "c"):
        outbox.put(kind, {})
    first = outbox.after(0, timeout=0)
    assert kinds(first) == ["a", "b", "c"]
    assert kinds(outbox.after(0, timeout=0)) == ["a", "b", "c"]  # a reader that came back
    outbox.acknowledge(first[1]["seq"])
    assert kinds(outbox.after(0, timeout=0)) == ["c"]


def test_progress_replaces_only_progress_that_nothing_came_after():
    outbox = Outbox()
    outbox.replace("progress", {"steps": [1]})
    outbox.replace("progress", {"steps": [2]})
    outbox.put("exited", {})
    outbox.replace("progress", {"steps": [3]})
    assert kinds(outbox.after(0, timeout=0)) == ["progress", "exited", "progress"]


def test_a_reader_that_waits_gets_what_is_put_meanwhile():
    outbox = Outbox()
    found = []
    reader = threading.Thread(target=lambda: found.extend(outbox.after(0, timeout=20)))
    reader.start()
    outbox.put("a", {})
    reader.join(20)
    assert kinds(found) == ["a"]


@given(st.lists(st.sampled_from(["put", "replace", "ack", "read"]), max_size=60))
def test_no_event_is_lost_or_seen_twice_by_a_reader_that_goes_on(actions):
    outbox, cursor, seen, put = Outbox(), 0, [], 0
    for action in [*actions, "read"]:
        if action == "put":
            outbox.put("event", {"number": put})
            put += 1
        elif action == "replace":
            outbox.replace("progress", {})
        elif action == "ack":
            outbox.acknowledge(cursor)
        else:
            for event in outbox.after(cursor, timeout=0):
                assert event["seq"] > cursor
                cursor = event["seq"]
                if "event" in event:
                    seen.append(event["event"]["number"])
    assert seen == list(range(put))


def exited(rank, gang=1, told=False, pid=100):
    return {
        "gang": gang, "rank": rank, "pid": pid + rank, "told": told,
        "signal": "SIGKILL", "code": None, "seen_at": 1.0,
    }  # fmt: skip


def tell(rank, kind, gang=1, **payload):
    return {"gang": gang, "rank": rank, "kind": kind, "payload": payload}


def poll(facts, **more):
    return facts.poll(at=0.0, committed=0, kept=0, stop=None, kill=False, **more)


def test_facts_of_another_attempt_are_not_ours():
    facts = Facts(2, 2)
    for kind, body in (
        ("started", {"gang": 1, "pids": {"0": 1}}),
        ("exited", exited(0, gang=1)),
        ("gone", {"gang": 1}),
        ("tell", tell(0, "finished", gang=1)),
        ("progress", {"gang": 1, "steps": [4, 4]}),
    ):
        facts.hear(kind, body)
    assert poll(facts) == poll(Facts(2, 2))
    assert facts.steps == []


def test_a_death_that_is_told_twice_is_one():
    facts = Facts(1, 2)
    facts.hear("exited", exited(0))
    facts.hear("exited", exited(0))
    assert [exit_.rank for exit_ in poll(facts).exits] == [0]


def test_a_rank_that_took_its_leave_did_not_die():
    facts = Facts(1, 1)
    facts.hear("tell", tell(0, "finished", step=5))
    facts.hear("exited", exited(0, told=True))
    assert poll(facts).exits == () and poll(facts).finished and poll(facts).left


def test_a_gang_is_finished_when_every_rank_is():
    facts = Facts(1, 2)
    facts.hear("tell", tell(0, "finished"))
    facts.hear("tell", tell(1, "drained"))
    assert not poll(facts).finished and poll(facts).left


def test_the_end_of_the_session_is_the_agents_death():
    facts = Facts(1, 1)
    facts.hear("lost", "the agent ended the session")
    assert poll(facts).agent_lost


@pytest.fixture
def stores(tmp_path):
    with open_stores(load_settings(home=tmp_path / "home", environment={})) as opened:
        yield opened


def row(stores, state="running", **spec):
    run = Run(ids.new_id("run"), "some", "train", state, {"cwd": "/", **spec}, detached=True)
    with stores.meta.write() as tx:
        tx.add_run(run)
    return run


def held_by(stores, run, identity):
    with stores.meta.write() as tx:
        tx.take_lease(f"run/{run.id}", str(identity), 60.0)
    with stores.meta.read() as db:
        return control.state_of(run, db.find_lease(f"run/{run.id}"), db.now())


def dead_process():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = process.Identity.of(child.pid)
    child.communicate(b"\n")
    return identity


def test_a_running_row_whose_owner_is_dead_is_interrupted(stores):
    run = row(stores)
    assert held_by(stores, run, dead_process()) == "interrupted"


def test_a_running_row_whose_owner_lives_is_running(stores):
    assert held_by(stores, row(stores), process.Identity.mine()) == "running"


def test_a_pid_that_was_given_again_is_nobodys_owner(stores):
    again = replace(process.Identity.mine(), started=1)
    assert held_by(stores, row(stores), again) == "interrupted"


def test_stopping_a_run_that_nobody_owns_only_marks_it(stores):
    run = row(stores)
    assert control.stop(stores, run.id).state == "stopped"
    with pytest.raises(Conflict, match="stopped already"):
        control.stop(stores, run.id)


def lease_of(stores, run):
    with stores.meta.read() as db:
        return db.find_lease(f"run/{run.id}")


def test_a_run_that_was_stopped_before_it_had_an_owner_is_never_begun(stores):
    run = row(stores, "pending")
    control.stop(stores, run.id)
    late = Controller(stores, run.id, work=None)  # not even its work is opened
    assert late.run().state == "stopped"
    assert control.owner(lease_of(stores, run), 0.0) is None
    with stores.meta.read() as db:
        assert [event.kind for event in db.events(subject=f"run/{run.id}")] == ["run.stopped"]
        assert db.attempts(run.id) == []


def test_a_run_that_was_just_taken_is_asked_to_stop(stores):
    run = row(stores, "pending")
    holding = Holding(stores, run.id)
    assert holding.take().state == "pending"
    assert control.stop(stores, run.id).state == "stopping"
    holding.release()
    assert control.owner(lease_of(stores, run), 0.0) is None


def test_a_finished_run_is_not_resumed(stores):
    with pytest.raises(Conflict, match="is finished"):
        control.resume(stores, row(stores, "finished").id)


def test_a_run_that_somebody_owns_is_not_resumed(stores):
    run = row(stores)
    held_by(stores, run, process.Identity.mine())
    with pytest.raises(Conflict, match=f"pid {os.getpid()}"):
        control.resume(stores, run.id)


def test_a_run_of_workers_0_goes_on_only_with_its_script(stores):
    with pytest.raises(BadInput, match="Run the script again"):
        control.resume(stores, row(stores, controller=None).id)


def test_a_pin_lasts_as_long_as_the_block_also_when_it_raises(stores):
    def oldest():
        with stores.meta.read() as db:
            return db.oldest_pin()

    with pytest.raises(ZeroDivisionError), pinned(stores.meta):
        assert oldest() is not None
        raise ZeroDivisionError
    assert oldest() is None
