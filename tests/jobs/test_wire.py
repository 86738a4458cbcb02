"""Messages between processes: whole, in order, with their descriptors, whatever the pieces."""

import os
import socket
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.jobs.wire import Channel, Closed
from penstock.jobs.words import Words

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@pytest.fixture
def ends():
    mine, theirs = Channel.pair()
    other = Channel(theirs)
    yield mine, other
    mine.close()
    other.close()


@given(st.lists(st.dictionaries(st.text(max_size=8), plain, max_size=3), max_size=12))
def test_messages_arrive_whole_and_in_order(messages):
    mine, theirs = Channel.pair()
    other = Channel(theirs)
    try:
        for message in messages:
            mine.send(message)
        found = []
        while len(found) < len(messages):
            found += [message for message, _ in other.drain()]
        assert found == messages
    finally:
        mine.close()
        other.close()


def frame(text):
    return struct.pack("<II", len(text), 0) + text


def test_a_frame_in_pieces_is_no_message_until_it_is_whole():
    raw, theirs = socket.socketpair()
    other = Channel(theirs)
    data = frame(b'{"a":1}')
    for at in range(len(data) - 1):
        raw.send(data[at : at + 1])
        assert other.receive(timeout=0) is None
    raw.send(data[-1:])
    assert other.receive(timeout=1) == ({"a": 1}, [])
    raw.close()
    other.close()


def test_descriptors_come_with_the_message_they_were_sent_with(ends):
    mine, other = ends
    pipes = [os.pipe() for _ in range(3)]
    mine.send({"number": 0}, (pipes[0][1],))
    mine.send({"number": 1})
    mine.send({"number": 2}, (pipes[1][1], pipes[2][1]))
    found = []
    while len(found) < 3:
        found += other.drain()
    assert [(message["number"], len(fds)) for message, fds in found] == [(0, 1), (1, 0), (2, 2)]
    for number, fd in enumerate([*found[0][1], *found[2][1]]):
        os.write(fd, b"%d" % number)
        assert os.read(pipes[number][0], 9) == b"%d" % number
        os.close(fd)
    for pair in pipes:
        for fd in pair:
            os.close(fd)


def test_a_large_message_is_taken_in_pieces_while_it_is_being_sent(ends):
    mine, other = ends
    text = "x" * 3_000_000
    sender = threading.Thread(target=mine.send, args=({"text": text},))
    sender.start()
    message, _ = other.receive(timeout=20)
    sender.join()
    assert message == {"text": text}


def test_the_last_words_are_read_before_the_end_is_met(ends):
    mine, other = ends
    mine.send({"last": "words"})
    mine.close()
    assert other.drain() == [({"last": "words"}, [])]
    with pytest.raises(Closed):
        other.drain()
    with pytest.raises(Closed):
        other.receive(timeout=1)


def test_a_torn_frame_at_the_end_is_no_message():
    raw, theirs = socket.socketpair()
    other = Channel(theirs)
    raw.send(frame(b'{"a":1}') + frame(b'{"b":2}')[:-3])
    raw.close()
    assert other.drain() == [({"a": 1}, [])]
    with pytest.raises(Closed):
        other.receive(timeout=1)
    other.close()


def test_sending_to_nobody_says_so(ends):
    mine, other = ends
    other.close()
    with pytest.raises(Closed):
        for _ in range(3):
            mine.send({"is": "anybody there"})


def test_a_length_that_no_frame_has_ends_the_channel():
    raw, theirs = socket.socketpair()
    other = Channel(theirs)
    raw.send(struct.pack("<II", 2**31, 0))
    with pytest.raises(Closed, match="a frame of"):
        other.receive(timeout=1)
    raw.close()
    other.close()


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=8), st.integers(0, 2**40))
def test_words_are_seen_through_every_descriptor_of_the_page(steps, wish):
    mine = Words.create(len(steps))
    theirs = Words(os.dup(mine.fd), len(steps))
    for rank, step in enumerate(steps):
        theirs.set_step(rank, step)
    mine.save_at, mine.drain_at = wish, wish + 1
    assert mine.steps() == steps
    assert (theirs.save_at, theirs.drain_at) == (wish, wish + 1)
    assert theirs.steps() == steps  # the wishes did not land on them
    mine.close()
    theirs.close()
