"""TCP between machines, tried out: on real sockets, with others that do not answer or refuse."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Iterator

import pytest

from penstock.jobs.probing import pairs
from penstock.jobs.probing.lines import Line, Listener, reached, sent


@pytest.fixture
def listener() -> Iterator[Listener]:
    found = Listener("127.0.0.1")
    yield found
    found.close()


def test_a_listener_is_reached_again_and_again(listener: Listener) -> None:
    for _ in range(3):
        assert set(reached(listener.line, 5.0)) == {"seconds"}


def test_as_many_bytes_are_counted_as_were_allowed(listener: Listener) -> None:
    found = sent(listener.line, most=(3 << 20) + 5, seconds=60.0, timeout=5.0)
    assert found["bytes"] == (3 << 20) + 5 and found["seconds"] > 0


def test_sending_ends_with_its_time_also_over_a_line_that_would_take_more(
    listener: Listener,
) -> None:
    found = sent(listener.line, most=1 << 40, seconds=0.05, timeout=5.0)
    assert 0 < found["bytes"] < 1 << 30


def test_who_has_not_the_token_gets_no_answer(listener: Listener) -> None:
    stranger = dataclasses.replace(listener.line, token="00" * 32)
    assert "error" in reached(stranger, 5.0) and "error" in sent(stranger, 1, 1.0, 5.0)
    assert "seconds" in reached(listener.line, 5.0)


def test_a_port_where_nobody_listens_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert reached(Line("127.0.0.1", port, "00"), 5.0) == {"error": "connection refused"}


def test_one_that_is_silent_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        line = Line("127.0.0.1", silent.getsockname()[1], "00")
        assert reached(line, 0.2) == {"error": "no answer within 0.2 s"}


def test_a_listener_needs_an_address_of_its_own_machine() -> None:
    with pytest.raises(OSError):
        Listener("192.0.2.1")


def test_a_caller_that_says_nothing_holds_up_no_other(listener: Listener) -> None:
    with socket.create_connection((listener.line.host, listener.line.port)):
        found: list[dict[str, object]] = []
        thread = threading.Thread(target=lambda: found.append(reached(listener.line, 5.0)))
        thread.start()
        thread.join(20)
        assert [set(each) for each in found] == [{"seconds"}]


@pytest.mark.parametrize("count", [1, 2, 5, 9, 10, 64, 1000])
def test_each_node_tries_and_is_tried_equally_often(count: int) -> None:
    names = [str(number) for number in range(count)]
    tried = pairs.partners(names)
    each = min(count - 1, pairs.MOST)
    assert all(len(set(others)) == each and name not in others for name, others in tried.items())
    of = [other for others in tried.values() for other in others]
    assert all(of.count(name) == each for name in names)


@pytest.mark.parametrize("count", [2, 3, 8, 9])
def test_each_node_sends_once_and_never_two_things_at_a_time(count: int) -> None:
    names = [str(number) for number in range(count)]
    rounds = pairs.rounds(names)
    for several in rounds:
        busy = [name for pair in several for name in pair]
        assert len(busy) == len(set(busy))
    assert sorted(pair[0] for several in rounds for pair in several) == sorted(names)
