"""The local home: opened with the first question, once, and again after it was closed."""

import os
import threading

import pytest

from penstock.base.errors import Conflict, NotFound, Refused
from penstock.base.settings import load_settings
from penstock.home.local import LocalHome, open_home
from penstock.records import to_data
from penstock.records.runs import Run


@pytest.fixture
def home(tmp_path):
    opened = open_home(folder=tmp_path, environment={}, home=str(tmp_path / "home"))
    yield opened
    opened.close()


def test_nothing_is_made_before_the_first_question(home, tmp_path):
    assert home.where == str(tmp_path / "home")
    assert not (tmp_path / "home").exists()
    assert home.runs() == []
    assert (tmp_path / "home" / "meta.db").exists()


def test_a_closed_home_opens_again_with_the_next_question(home):
    first = home.stores
    home.close()
    home.close()
    assert home.datasets() == []
    assert home.stores is not first


def test_threads_share_what_is_open(home):
    seen = set()
    threads = [threading.Thread(target=lambda: seen.add(id(home.stores))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 1


def test_every_answer_is_plain_json_in_the_end(home):
    import json

    with home.stores.meta.write() as tx:
        tx.add_run(Run("run-1", "base", "train", "finished", {"entry": "m:f"}, created_at=1.0))
        tx.event("run/run-1", "run.finished", {})
    answers = [home.runs(), home.run("base"), home.events(), home.doctor(), home.collect_garbage()]
    for answer in answers:
        assert json.loads(json.dumps(to_data(answer))) is not None


def test_events_are_waited_for(home):
    found = []
    last = home.last_event()

    def wait():
        found.extend(home.events(after=last, wait=30.0))

    thread = threading.Thread(target=wait)
    thread.start()
    with home.stores.meta.write() as tx:
        tx.event("run/x", "run.started", {})
    thread.join(timeout=30)
    assert [event.kind for event in found] == ["run.started"]


def test_a_model_that_was_never_evaluated_is_not_promoted(home):
    digest = home.stores.blobs.put(b"{}")
    with home.stores.meta.write() as tx:
        tx.add_version("model", "net", digest, "run/1", {}, [digest])
    with pytest.raises(Refused, match="never evaluated"):
        home.promote("net", "production")
    with pytest.raises(NotFound):
        home.model("net@production")


def test_metrics_of_a_run_without_any_are_empty(home):
    with home.stores.meta.write() as tx:
        tx.add_run(Run("run-1", "base", "train", "running", {}, created_at=1.0))
    assert home.metrics("base") == {}
    assert home.run("base").metrics == {}
    assert home.pids("base") == []


def test_settings_may_be_given_whole(tmp_path):
    settings = load_settings(folder=tmp_path, environment={}, home=tmp_path / "h")
    assert LocalHome(settings).settings is settings


@pytest.mark.faults
@pytest.mark.parametrize("expect", [1, None])
def test_of_processes_that_move_an_alias_at_once_each_wins_or_is_told(home, tmp_path, expect):
    with home.stores.meta.write() as tx:
        for number in range(1, 6):
            digest = f"sha256:{number:064d}"
            tx.add_version("dataset", "digits", digest, f"by-{number}", {}, [digest])
    home.move_data_alias("digits@1", "stable", None)
    home.close()
    ready, go = os.pipe()

    def move(number):
        mine = open_home(folder=tmp_path, environment={}, home=str(tmp_path / "home"))
        os.close(go)
        os.read(ready, 1)  # all start when the pipe closes
        try:
            moved = mine.move_data_alias(f"digits@{number}", "stable", expect)
            return 10 + moved.version
        except Conflict as error:
            return 20 if "digits@stable" in str(error) else 70

    children = []
    for number in range(2, 6):
        if (child := os.fork()) == 0:
            status = 70
            try:
                status = move(number)
            finally:
                os._exit(status)
        children.append(child)
    os.close(go)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os.close(ready)
    won = [end - 10 for end in ends if end < 20]
    assert len(won) == 1 if expect else won
    assert [end for end in ends if end >= 20] == [20] * (4 - len(won))
    with home.stores.meta.read() as db:
        moves = [each for each in db.events(limit=100) if "alias" in each.kind]
        assert db.get_version("dataset", "digits@stable").version in won
    assert len(moves) == 1 + len(won)
