"""Ownership: one holder, a generation that only grows, and a fence at the commit."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from penstock.base.clock import ManualClock
from penstock.base.errors import LeaseHeld, LeaseLost
from penstock.base.process import Identity
from penstock.meta import Meta, open_meta
from penstock.records import Lease

ELSEWHERE = "elsewhere/some-boot/1/1"


def _take(meta: Meta, holder: str, key: str = "run/1", ttl: float = 10.0) -> Lease:
    with meta.write() as writer:
        return writer.take_lease(key, holder, ttl)


def _dead() -> str:
    """The identity of a process of this machine and boot that has ended."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    identity = str(Identity(Identity.mine().host, Identity.mine().boot, child, 1))
    os.waitpid(child, 0)
    return identity


def test_a_free_key_is_taken_with_generation_one(meta: Meta, clock: ManualClock) -> None:
    lease = _take(meta, ELSEWHERE)
    assert lease == Lease("run/1", ELSEWHERE, 1, clock.wall() + 10)
    with meta.read() as reader:
        assert reader.find_lease("run/1") == lease
        assert reader.find_lease("run/2") is None


def test_a_held_key_is_refused_and_the_holder_named(meta: Meta) -> None:
    _take(meta, str(Identity.mine()))
    with pytest.raises(LeaseHeld, match=str(os.getpid())) as caught:
        _take(meta, ELSEWHERE)
    assert caught.value.facts["holder"] == str(Identity.mine())


def test_the_holder_itself_cannot_take_it_twice(meta: Meta) -> None:
    _take(meta, ELSEWHERE)
    with pytest.raises(LeaseHeld):
        _take(meta, ELSEWHERE)


def test_an_expired_lease_is_taken_over(meta: Meta, clock: ManualClock) -> None:
    _take(meta, ELSEWHERE, ttl=10)
    clock.advance(9.9)
    with pytest.raises(LeaseHeld):
        _take(meta, "other/b/2/2")
    clock.advance(0.2)
    assert _take(meta, "other/b/2/2").generation == 2


def test_a_dead_holder_of_this_machine_is_replaced_at_once(meta: Meta) -> None:
    assert _take(meta, _dead(), ttl=1e9).generation == 1
    assert _take(meta, str(Identity.mine()), ttl=1e9).generation == 2


def test_a_holder_of_an_earlier_boot_is_replaced_at_once(meta: Meta) -> None:
    mine = Identity.mine()
    _take(meta, str(Identity(mine.host, "an-earlier-boot", mine.pid, mine.started)), ttl=1e9)
    assert _take(meta, str(mine)).generation == 2


def test_a_pid_that_was_used_again_does_not_keep_a_lease(meta: Meta) -> None:
    mine = Identity.mine()
    _take(meta, str(Identity(mine.host, mine.boot, mine.pid, mine.started - 1)), ttl=1e9)
    assert _take(meta, str(mine)).generation == 2


def test_the_generation_survives_the_release(meta: Meta) -> None:
    lease = _take(meta, ELSEWHERE)
    with meta.write() as writer:
        writer.release_lease(lease)
        writer.release_lease(lease)
        assert writer.find_lease("run/1") is None
    assert _take(meta, ELSEWHERE).generation == 2


def test_a_lost_lease_cannot_release_its_successors(meta: Meta, clock: ManualClock) -> None:
    lost = _take(meta, ELSEWHERE)
    clock.advance(11)
    newest = _take(meta, "other/b/2/2")
    with meta.write() as writer:
        writer.release_lease(lost)
        assert writer.find_lease("run/1") == newest


def test_a_renewed_lease_lasts_longer(meta: Meta, clock: ManualClock) -> None:
    lease = _take(meta, ELSEWHERE)
    clock.advance(9)
    with meta.write() as writer:
        renewed = writer.renew_lease(lease, 10)
    assert renewed == Lease("run/1", ELSEWHERE, 1, clock.wall() + 10)
    clock.advance(9)
    with pytest.raises(LeaseHeld):
        _take(meta, "other/b/2/2")


def test_an_expired_lease_that_nobody_took_still_writes(meta: Meta, clock: ManualClock) -> None:
    """Clocks only decide when others may try; the generation decides who may write."""
    lease = _take(meta, ELSEWHERE)
    clock.advance(1e6)
    with meta.write(lease) as writer:
        writer.renew_lease(lease, 10)
        writer.event("run/1", "run.finished")


@pytest.mark.parametrize("how", ["taken over", "released"])
def test_a_stale_lease_writes_nothing(meta: Meta, clock: ManualClock, how: str) -> None:
    lease = _take(meta, ELSEWHERE)
    if how == "taken over":
        clock.advance(11)
        _take(meta, "other/b/2/2")
    else:
        with meta.write() as writer:
            writer.release_lease(lease)
    entered = False
    with pytest.raises(LeaseLost), meta.write(lease) as writer:
        entered = True
        writer.event("run/1", "run.finished")
    assert not entered
    with pytest.raises(LeaseLost), meta.write() as writer:
        writer.event("run/1", "x")
        writer.renew_lease(lease, 10)
    with meta.read() as reader:
        assert reader.last_event() == 0


def test_a_lease_of_a_key_that_was_never_taken_is_lost(meta: Meta) -> None:
    with pytest.raises(LeaseLost), meta.write(Lease("run/9", ELSEWHERE, 1, 1e12)):
        pass


def test_of_many_that_try_at_once_one_gets_it(meta: Meta) -> None:
    got: list[int] = []
    refused: list[int] = []

    def try_it(number: int) -> None:
        try:
            got.append(_take(meta, f"host-{number}/b/1/1").generation)
        except LeaseHeld:
            refused.append(number)

    threads = [threading.Thread(target=try_it, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [1]
    assert len(refused) == 11


def test_an_overtaken_owner_and_its_successor_never_both_commit(
    file_meta: Meta, clock: ManualClock, tmp_path: Path
) -> None:
    """The owner sits inside its transaction while another store tries to take the lease over."""
    other = open_meta(f"sqlite:///{tmp_path}/meta.db", clock=clock)
    lease = _take(file_meta, ELSEWHERE)
    clock.advance(11)
    taken: list[Lease] = []
    taker = threading.Thread(target=lambda: taken.append(_take(other, "other/b/2/2")))
    with file_meta.write(lease) as writer:
        taker.start()
        writer.event("run/1", "committed-under-1")
        assert taken == [], "the take-over waits for the commit"
    taker.join()
    with other.read() as reader:
        assert [event.kind for event in reader.events()] == ["committed-under-1"]
    with pytest.raises(LeaseLost), file_meta.write(lease):
        pass
    other.close()


class Ownership(RuleBasedStateMachine):
    """Any order of taking, renewing, writing, releasing and waiting, against a small model."""

    @initialize()
    def start(self) -> None:
        self.clock = ManualClock()
        self.meta = open_meta("memory://", clock=self.clock)
        self.mine: dict[str, Lease] = {}  # what each believes to hold
        self.newest = 0
        self.owner: str | None = None
        self.expires = 0.0
        self.written = 0

    who = st.sampled_from(["a", "b", "c"])

    @rule(who=who, ttl=st.sampled_from([1.0, 5.0]))
    def take(self, who: str, ttl: float) -> None:
        free = self.owner is None or self.expires <= self.clock.wall()
        try:
            self.mine[who] = _take(self.meta, who, "k", ttl)
        except LeaseHeld:
            assert not free
            return
        assert free
        self.newest += 1
        assert self.mine[who].generation == self.newest
        self.owner, self.expires = who, self.clock.wall() + ttl

    def _owns(self, who: str) -> bool:
        return self.owner == who and self.mine[who].generation == self.newest

    @rule(who=who)
    def write(self, who: str) -> None:
        if who not in self.mine:
            return
        try:
            with self.meta.write(self.mine[who]) as writer:
                writer.event("k", "written", {"generation": self.newest})
        except LeaseLost:
            assert not self._owns(who)
        else:
            assert self._owns(who)
            self.written += 1

    @rule(who=who)
    def renew(self, who: str) -> None:
        if who not in self.mine:
            return
        try:
            with self.meta.write() as writer:
                self.mine[who] = writer.renew_lease(self.mine[who], 5.0)
        except LeaseLost:
            assert not self._owns(who)
        else:
            assert self._owns(who)
            self.expires = self.clock.wall() + 5.0

    @rule(who=who)
    def release(self, who: str) -> None:
        if who not in self.mine:
            return
        with self.meta.write() as writer:
            writer.release_lease(self.mine[who])
        if self._owns(who):
            self.owner = None

    @rule(seconds=st.sampled_from([0.5, 2.0, 10.0, -3.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def only_owners_wrote(self) -> None:
        with self.meta.read() as reader:
            assert reader.last_event() == self.written


Ownership.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestOwnership = Ownership.TestCase
