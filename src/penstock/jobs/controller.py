"""The controller: owner of one run. One thread; a small loop that carries out `decide`.

It holds the lease "run/ID", makes all writes to `meta`, and commands the agent. Any instruction
may be its last: the agent starts it again, the next one takes the lease with a higher generation,
attaches, and reads on where its predecessor's acknowledgements end. When both die the run is
interrupted, and whoever starts a controller next adopts it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from penstock.base import log
from penstock.base.errors import LeaseLost, PenstockError, StoreUnreachable
from penstock.base.interrupts import Interrupts
from penstock.jobs import decide as think
from penstock.jobs import orders, rows
from penstock.jobs.backends.engines import is_here
from penstock.jobs.backends.making import agents_of
from penstock.jobs.backends.port import Agents
from penstock.jobs.budgets import LIMITS, Budget
from penstock.jobs.claiming import Claiming
from penstock.jobs.facts import Facts, worth_telling
from penstock.jobs.holding import Holding
from penstock.jobs.news import News
from penstock.jobs.remains import discard
from penstock.jobs.stores import Stores
from penstock.jobs.wishes import Wishes
from penstock.jobs.work import Call, Work
from penstock.meta import Writer
from penstock.records import Run
from penstock.records.runs import ENDED

T = TypeVar("T")
_TICK = 0.05  # seconds between looks when the agent says nothing
_log = log.logger("controller")


class Controller:
    """See the module. `run` returns the run's last row; raises LeaseHeld when another owns it.

    restart     the command line that starts it again; None: it lives in the user's own process
    interrupts  Ctrl-C in that process, counted: raised where nothing is half done
    """

    def __init__(
        self,
        stores: Stores,
        run_id: str,
        work: Work,
        restart: list[str] | None = None,
        interrupts: Interrupts | None = None,
    ) -> None:
        self.stores = stores
        self.run_id = run_id
        self.attempt = 0
        self._work = work
        self._restart = restart
        self._interrupts = interrupts or Interrupts()
        self._holding = Holding(stores, run_id)
        self._claiming = Claiming(stores, run_id, self._holding.commit)
        self._agents: Agents | None = None
        self._adopting = 0
        self._facts = Facts()
        self._news = News(run_id)
        self._state: think.State = think.Starting(0, Budget())
        self._wishes = Wishes()
        self._replaced = 0
        self._next_look = 0.0
        self._next_step_write = 0.0

    # -- for the work ---------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        return self._holding.generation

    def commit(self, change: Callable[[Writer], T], alone: bool = False) -> T:
        """One transaction under the lease; a store that is gone for a moment is waited for."""
        return self._news.told_with(lambda both: self._holding.commit(both, alone), change)

    def event(self, kind: str, body: dict[str, Any]) -> None:
        self.commit(lambda tx: tx.event(f"run/{self.run_id}", kind, body))

    def reply(self, call: Call, payload: dict[str, Any]) -> None:
        self._send(
            reply={"gang": self.attempt, "rank": call.rank, "id": call.id, "payload": payload}
        )

    def refuse(self, call: Call, error: dict[str, Any]) -> None:
        self._answer(call, error=error)

    def _answer(self, call: Call, **content: Any) -> None:
        self._send(reply={"gang": self.attempt, "rank": call.rank, "id": call.id, **content})

    # -- for any thread, and for signal handlers ------------------------------------------------

    def stop(self, why: str) -> None:
        """Ask for a clean end."""
        self._wishes.stop(why)

    def preempt(self) -> None:
        """Its place is taken away: save in time, and leave the run to whoever adopts it."""
        self._wishes.preempt(self._work.shape)

    def kill(self) -> None:
        """Ask for an end at once."""
        self._wishes.kill()

    # -- the run --------------------------------------------------------------------------------

    def run(self) -> Run:
        run = self._holding.take()
        if run.state in ENDED:  # stopped before it had an owner: nothing of it may go on
            discard(self.stores.layout.runtime(f"run/{self.run_id}", create=False))
            return run
        self._load(run)
        try:
            self._work.open(self)
            self._find_agent(run)
            while not isinstance(self._state, think.Ended) or self._waits():
                self._step()
            return self._finish(self._state)
        except LeaseLost:
            _log.error("another controller took over; leaving everything to it")
            raise
        except PenstockError as error:
            self._give_up(error)
            raise
        except KeyboardInterrupt:  # only where the controller lives in the user's own process
            self._interrupted()
            raise

    def _waits(self) -> bool:
        """At the end, for what only the agent's processes can still bring."""
        wished = self._wishes.facts(self.stores.settings.grace_seconds)
        if wished["kill"] or self._facts.agent_lost:
            return False
        return self._work.waits(wished["grace"] if wished["preempted"] else None)

    def _step(self) -> None:
        self._raise_if_interrupted()
        self._holding.renew()
        heard = self._listen()
        self._look()
        before = self._state
        poll = self._facts.poll(
            at=time.monotonic(),
            committed=self._work.committed(),
            kept=self._work.kept(),
            **self._wishes.facts(self.stores.settings.grace_seconds),
        )
        self._state = think.decide(before, poll)
        if self._state != before:
            self._carry_out(before, self._state)
        ends_soon = heard and isinstance(self._state, think.Clearing)  # and that commit tells all
        if self._news and not ends_soon:
            self.commit(lambda tx: None)
        if seq := self._news.in_rows():
            self._send(ack=seq)

    def _raise_if_interrupted(self) -> None:
        """Where no transaction is open."""
        if self._interrupts.count:
            raise KeyboardInterrupt

    def _load(self, run: Run) -> None:
        with self.stores.meta.read() as db:
            attempts = db.attempts(self.run_id)
        self.attempt = attempts[-1].number if attempts else 0
        self._wishes.listen_for_client(run)

    def _find_agent(self, run: Run) -> None:
        keep = self._holding.keep  # finding and ending what is elsewhere may outlast the lease
        self._agents = agents_of(self.stores, run, self._work.shape, self._restart, keep)
        if self._agents.find(self.generation):
            self.event("controller.adopted", {"generation": self.generation})
            self._adopting = self.generation
            self._facts = Facts(self.attempt, run.spec["world_size"])
            self._state = think.Running(self.attempt, Budget(committed=self._work.committed()))
            return
        self._holding.close_attempts("interrupted")
        if self._wait_for_devices():
            self._agents.start(self.generation)
            self._begin(think.Starting(self.attempt + 1, Budget()))

    def _wait_for_devices(self) -> bool:
        """Until the gang has its devices. False: it is to stop, and does not begin. Elsewhere they
        are given with the places."""
        if not is_here(self.stores.settings):
            return True
        with self.stores.meta.read() as db:
            self._claiming.want(db.get_run(self.run_id).spec)

        def is_over() -> bool:
            self._raise_if_interrupted()
            self._holding.renew()
            self._look()
            return self._wishes.is_over()

        if self._claiming.wait(is_over):
            return True
        self._state = self._wishes.ended()
        return False

    # -- listening ------------------------------------------------------------------------------

    def _listen(self) -> bool:
        """Whether there was anything to hear."""
        assert self._agents is not None
        timeout, heard = _TICK, False
        while (message := self._agents.hear(timeout)) is not None:
            timeout, heard = 0.0001, True
            self._news.heard(message.get("seq"))
            self._hear(message)
        return heard

    def _hear(self, message: dict[str, Any]) -> None:
        kind, body = next((k, v) for k, v in message.items() if k != "seq")
        if kind == "call":
            self._on_call(body)
        elif kind == "sidecar":
            self._work.on_sidecar(body["name"], body)
        elif kind == "kept":
            self._work.on_kept(body["gang"], body["step"], body["world_size"])
        elif kind == "handed" and body["gang"] == self.attempt:
            self._work.on_handed(body["rank"], body["step"])
        elif kind == "tell" and body["gang"] == self.attempt:
            self._facts.hear(kind, body)
            self._work.on_tell(body["rank"], body["kind"], body["payload"])
        elif kind == "holds" and body["to"] == self._adopting:
            self._compare(body["gang"])
        elif kind == "preempted":
            self.preempt()
        elif kind == "away" and self._work.shape == "map":  # its caller waits for the result
            self._facts.hear("broken", body)
        elif kind == "ready" and body["left_out"]:
            self.commit(lambda tx: rows.note_left_out(tx, self.run_id, body["left_out"]))
        elif kind == "unplaced" and body["gang"] == self.attempt:
            self._lose_some(body)
        elif kind == "exited" and self._is_replaceable(body):
            self._replace(body)
        else:
            self._facts.hear(kind, body)
            if found := worth_telling(kind, body, self._facts):
                self._news.add(found[0], {**found[1], "attempt": self.attempt})

    def _compare(self, gang: int) -> None:
        """Does the agent that was found run the attempt that the rows tell of? One that died
        before it asked for its first gang, or for the next, left an attempt that nobody runs."""
        if not isinstance(self._state, think.Running):
            return
        budget = self._state.budget
        if gang == 0:
            self._holding.close_attempts("interrupted")
            self._begin(think.Starting(self.attempt + 1, budget))
        elif gang != self.attempt:
            self._state = think.Clearing(self.attempt, budget, "start", "interrupted")
            self._facts.gone = True
            self._send(kill={"gang": gang})

    def _on_call(self, body: dict[str, Any]) -> None:
        if body["gang"] != self.attempt:
            return
        call = Call(body["rank"], body["id"], body["kind"], body["payload"])
        try:
            answer = self._work.on_call(call)
        except LeaseLost:
            raise
        except PenstockError as error:
            self.refuse(call, error.as_dict())
            return
        if answer is not None:
            self.reply(call, answer)

    def _is_replaceable(self, body: dict[str, Any]) -> bool:
        """A worker of a map that died, while there is patience for it."""
        current = body["gang"] == self.attempt and not body["told"]
        alone = self._work.shape == "map" and isinstance(self._state, think.Running)
        return current and alone and self._replaced < LIMITS["crash"]

    def _replace(self, body: dict[str, Any]) -> None:
        self._replaced += 1
        fact = {key: body[key] for key in ("rank", "pid", "signal", "code", "seen_at")}
        self.event("rank.died", {**fact, "attempt": self.attempt})
        self._work.on_tell(body["rank"], "died", body)
        self._send(restart={"rank": body["rank"]})

    def _lose_some(self, body: dict[str, Any]) -> None:
        """Workers of a map whose agent is lost: others do what they had, and they come again."""
        about = {key: body[key] for key in ("ranks", "node", "host", "why")}
        self.event("node.lost", {"attempt": self.attempt, **about})
        for rank in body["ranks"]:
            self._work.on_tell(rank, "died", {})

    def _look(self) -> None:
        """At what others may want: a stop in the row, a script that is gone, a checkpoint."""
        assert self._agents is not None
        if isinstance(self._state, think.Running):
            wish = self._work.tick(self._facts.steps)
            if wish and "save" in wish:
                self._send(save={"gang": self.attempt, "margin": self._margin()})
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + 0.1
        try:
            with self.stores.meta.read() as db:
                run = db.get_run(self.run_id)
        except StoreUnreachable:  # it was cut off; the next look, or a commit, waits for it
            return
        self._wishes.look(run)
        resize = self._work.resize(run.spec, self._agents.room())
        self._wishes.resize = self._facts.leaving or resize
        step = min(self._facts.steps, default=0)
        if step > run.step and now > self._next_step_write:
            self._next_step_write = now + 1.0
            self.commit(lambda tx: tx.change_run(self.run_id, step=step))

    def _margin(self) -> int:
        """Steps that may pass before all ranks have seen a word: by the pace they go at."""
        return 2 + int(0.1 * self._facts.pace())

    # -- carrying out ---------------------------------------------------------------------------

    def _carry_out(self, before: think.State, after: think.State) -> None:
        assert self._agents is not None
        match after:
            case think.Draining(why=why):
                self.event("run.draining", {"why": why})
                if after.then == "stop":
                    self._work.drain()
                self._send(drain={"gang": self.attempt, "margin": self._margin()})
            case think.Clearing():
                self._send(kill={"gang": self.attempt})
            case think.Starting() if isinstance(before, think.Clearing):
                self._again(before, after)
            case think.Ended() if isinstance(before, think.Clearing):
                self._end_attempt(before.cause, before.detail)
            case think.Ended(outcome=outcome, detail=detail):
                self._end_attempt(str(detail.get("why", outcome)), {})

    def _again(self, before: think.Clearing, state: think.Starting) -> None:
        """A new attempt of the same run: a new generation, and a new agent if that one died."""
        assert self._agents is not None
        lost, node = self._facts.agent_lost, self._facts.node_lost
        self._news.told_with(self._holding.take_anew, self._ending(before.cause, before.detail))
        if lost:
            self._agents.lost()
            kind = "agent.died" if node is None else "node.lost"
            self.event(kind, {"attempt": state.attempt - 1, **(node or {})})
            self._work.on_kept(*self._agents.kept())
            self._agents.start(self.generation)
        self._begin(state)

    def _begin(self, state: think.Starting) -> None:
        assert self._agents is not None
        self.attempt = state.attempt
        self._state = state
        self._wishes.resize = None
        payload = self._work.start(state.budget.in_a_row, self._agents.room())
        if not self._wait_for_devices():  # another number of ranks may want others
            return
        run = self._open_attempt()
        self._facts = Facts(self.attempt, run.spec["world_size"])
        self._send(
            start=orders.for_gang(
                run,
                self._work,
                gang=self.attempt,
                generation=self.generation,
                payload={**payload, **self._claiming.payload()},
                env=self._claiming.environment(),
                hang_seconds=orders.hang_seconds(self.stores.settings, self._work.shape, state),
            )
        )

    def _open_attempt(self) -> Run:
        number, generation = self.attempt, self.generation
        from_step = max(self._work.committed(), self._work.kept())
        return self.commit(
            lambda tx: rows.begin_attempt(tx, self.run_id, number, generation, from_step)
        )

    def _end_attempt(self, cause: str, detail: dict[str, Any]) -> None:
        self.commit(self._ending(cause, detail))

    def _ending(self, cause: str, detail: dict[str, Any]) -> Callable[[Writer], None]:
        reached, number = max(self._facts.steps, default=0), self.attempt
        return lambda tx: rows.end_attempt(tx, self.run_id, number, cause, reached, detail)

    def _finish(self, ended: think.Ended) -> Run:
        assert self._agents is not None
        result: dict[str, Any] = {}
        if ended.outcome == "finished":
            result = self._work.finish(self._facts.results)
        self._agents.end()
        self._work.close()
        step = max(*self._facts.steps, self._work.committed(), 0)
        run = self.commit(lambda tx: rows.end_run(tx, self.run_id, ended, step, result))
        self._holding.release()
        if ended.outcome == "interrupted":
            _log.error("%s", ended.detail["why"])  # the last words: its script tells them
        return run

    def _give_up(self, error: PenstockError) -> None:
        """Something that no attempt can mend (a full disk, a bad spec): end, and say it."""
        _log.error("giving up", extra=log.facts(error=error.as_dict()))
        if self._agents is not None:
            self._agents.end()
        try:
            self._work.close()
            self._break_off("failed", {"error": error.as_dict()})
        except PenstockError as second:
            _log.error("and the end cannot be recorded", extra=log.facts(error=str(second)))

    def _interrupted(self) -> None:
        """Ctrl-C: nothing may go on without the one who pressed it; all that is done stays."""
        if self._agents is not None:
            self._agents.end()
        self._break_off("stopped", {"why": "Ctrl-C"})

    def _break_off(self, state: Literal["failed", "stopped"], body: dict[str, Any]) -> None:
        self.commit(lambda tx: rows.break_off(tx, self.run_id, state, body))
        self._holding.release()

    def _send(self, **message: Any) -> None:
        if self._agents is not None:
            self._agents.send(**message)
