"""One logger, two forms, and the user's own logging untouched."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from penstock.base import log


@pytest.fixture(autouse=True)
def as_it_was():
    root = logging.getLogger("penstock")
    before = root.handlers[:], root.level, root.propagate
    yield
    root.handlers[:], root.level, root.propagate = before


def lines(capsys) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_json_lines_hold_message_level_and_facts(capsys):
    log.set_up(form="json")
    log.logger("jobs").warning("rank died", extra=log.facts(rank=1, path=None))
    (line,) = lines(capsys)
    data = json.loads(line)
    assert data.pop("at") > 0
    assert data == {
        "level": "warning",
        "logger": "penstock.jobs",
        "message": "rank died",
        "rank": 1,
        "path": None,
    }


def test_a_traceback_stays_in_its_json_line(capsys):
    log.set_up(form="json")
    try:
        raise ValueError("x")
    except ValueError:
        log.logger("jobs").exception("failed")
    (line,) = lines(capsys)
    assert "ValueError: x" in json.loads(line)["traceback"]


def test_people_read_one_line_with_facts_behind(capsys):
    log.set_up(form="human")
    log.logger("jobs").info("started", extra=log.facts(pid=7))
    (line,) = lines(capsys)
    assert line.endswith("info    started  pid=7")


def test_auto_means_json_where_nobody_reads(capsys):
    assert not sys.stderr.isatty()
    log.set_up()
    log.logger("x").info("y")
    assert json.loads(lines(capsys)[0])["message"] == "y"


def test_the_level_is_kept_and_setting_up_again_replaces(capsys):
    log.set_up(form="human")
    log.set_up("error", form="human")
    log.logger("x").warning("not shown")
    log.logger("x").error("shown")
    assert len(lines(capsys)) == 1


def test_the_users_logging_is_not_touched():
    before = logging.getLogger().handlers[:], logging.getLogger().level
    log.set_up("debug")
    assert (logging.getLogger().handlers[:], logging.getLogger().level) == before
