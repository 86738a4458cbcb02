"""What a training run's controller does: choose the checkpoint to go on from, commit new ones,
resolve references, publish models. All under the run's lease; see `jobs.work.Work`."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Literal

from penstock.base import log, units
from penstock.base.errors import Damaged, GradientsUnhealthy
from penstock.checkpoints import newest_whole
from penstock.jobs import compiled
from penstock.jobs.source import import_paths, materialise
from penstock.jobs.work import Call, Control
from penstock.meta import Writer
from penstock.records import Run
from penstock.signals import trim
from penstock.training import windows
from penstock.training.choosing import Kept, tier_of
from penstock.training.committing import Assembled, assembled, commit_checkpoint, go_back
from penstock.training.elastic import Sizes
from penstock.training.forwarding import Forwarding, keep
from penstock.training.interval import Pacing, failed
from penstock.training.references import References
from penstock.training.releasing import Releases
from penstock.training.straggling import Straggling
from penstock.training.under_way import PATIENCE, UnderWay

_SETTLE = 5.0  # seconds to wait for checkpoints of the gang that died
_TOLD = {  # what a rank tells -> the event that it becomes
    "initialised": "weights.initialised",
    "stepping": "attempt.stepping",
    "data": "data.opened",
    "checked": "data.checked",
}
_log = log.logger("controller")
_Step = tuple[int, int]  # attempt, step


class TrainingWork:
    """One training run's contents. Called by one thread."""

    shape: Literal["gang", "map"] = "gang"
    entry = "penstock.training.rank:main"

    def __init__(self, run: Run) -> None:
        self._spec = run.spec
        self._name = run.name
        self._source = run.source
        self._world = int(run.spec["world_size"])
        self._worlds: dict[int, int] = {}  # attempt -> its ranks, where that is another number
        self._committed = self._begun_at = 0
        self._parts: dict[_Step, dict[int, dict[str, Any]]] = {}
        self._handed: dict[_Step, set[int]] = {}
        self._asked: list[Call] = []  # ranks that wait for the answer to "restore"
        self._chosen: dict[str, Any] | None = None
        self._kept = Kept()
        self._started_at = 0.0
        self._died_at: float | None = None
        self._last_save = time.monotonic()
        self._torn = False  # a rank's last copy could not be used: another is wanted at once
        self._forwarding: Forwarding | None = None
        self._finished = False
        forked = run.spec.get("forked_from", {})
        self._origin: int | None = forked.get("step")
        every = run.spec["every_seconds"]
        auto = run.spec.get("every") == "auto"
        self._pacing = Pacing("auto" if auto else every, run.spec.get("interval"))
        self._gone_back: _Step = (0, 0)  # the newest attempt that was; to which step

    def open(self, control: Control) -> None:
        self._control = control
        self._releases = Releases(control)
        self._references = References(control)
        self._under_way = UnderWay(control, self._source)
        with control.stores.meta.read() as db:
            rows = db.checkpoints(control.run_id)
            attempts = db.attempts(control.run_id)
        self._committed = max((row.step for row in rows), default=0)
        self._land()
        self._paths: list[str] = []
        if self._source:  # none of a function that was typed into a notebook
            stores = control.stores
            folder = materialise(self._source, stores.blobs, stores.layout.sources)
            found = import_paths(self._source, stores.blobs, folder)
            self._paths = [str(path) for path in found]
        self._straggling = Straggling(control.stores.layout.signals(control.run_id))
        if attempts and attempts[-1].ended_at is None:  # it may go on under this controller
            last = attempts[-1]
            self._straggling.begin(last.number, last.generation, self._world, adopted=True)
        self._forwarding = Forwarding(
            control.stores, control.run_id, self._name, self._spec["config"]["value"]
        )

    def committed(self) -> int:
        return self._committed

    def kept(self) -> int:
        found = self._kept
        void = self._is_void((found.gang, found.step))
        return found.step if found.is_of_use(self._world) and not void else 0

    def _world_of(self, attempt: int) -> int:
        return self._worlds.get(attempt, self._world)

    def _sizes(self) -> Sizes | None:
        found = self._spec.get("elastic")
        return Sizes(**found) if found else None

    def resize(self, spec: dict[str, Any], room: int | None) -> str | None:
        if (sizes := self._sizes()) is None:
            return None
        size = sizes.next(self._world, spec.get("wanted"), room=room)
        if size > self._world and room is not None and self._committed <= self._begun_at:
            return None  # the attempt comes to something first
        return None if size == self._world else f"resized to {units.show_count(size, 'rank')}"

    def _choose_size(self, failures: int, room: int | None) -> None:
        """For the attempt that begins; what was asked for meanwhile stands in the row."""
        control = self._control
        if (sizes := self._sizes()) is None:
            return
        with control.stores.meta.read() as db:
            wanted = db.get_run(control.run_id).spec.get("wanted")
        self._worlds[control.attempt - 1] = self._world
        size = sizes.next(self._world, wanted, failures, room)
        if size != self._world:
            body = {"attempt": control.attempt, "from": self._world, "to": size}
            self._change_spec(world_size=size)
            control.event("gang.resized", {**body, "failures": failures})
            self._world = size

    def start(self, failures: int, room: int | None = None) -> dict[str, Any]:
        self._begun_at = self._committed
        self._choose_size(failures, room)
        with self._control.stores.meta.read() as db:
            self._pacing.seen(*failed(db.attempts(self._control.run_id), db.now()))
        self._chosen = None
        self._asked = []
        self._releases.new_attempt()
        self._trim()
        self._straggling.begin(self._control.attempt, self._control.generation, self._world)
        self._started_at = time.monotonic()
        self._last_save = time.monotonic()
        stores = self._control.stores
        keys = ("entry", "config", "seed", "threads", "every_steps")
        return {
            **{key: self._spec[key] for key in keys},
            "known": self._known(),
            "init_from": self._spec.get("init_from"),
            "device": self._spec.get("device", "auto"),
            "elastic": self._spec.get("elastic"),
            "memory_every": stores.settings.checkpoint_memory_every,
            "run_id": self._control.run_id,
            "name": self._name,
            "source": self._source,
            "paths": self._paths,
            "home": str(stores.layout.root),
            "blobs": stores.blobs.url,
        }

    def _trim(self) -> None:
        """Give back what the gang before had preallocated, beside the start of this one, in a
        thread that ends by itself."""
        folder = self._control.stores.layout.signals(self._control.run_id)
        threading.Thread(target=trim, args=(folder,), name="trimming", daemon=True).start()

    def _known(self) -> list[dict[str, Any]]:
        """Answers that ranks get with the order to start, and need not wait for."""
        known = self._references.known()
        if self.kept() and self._settled():
            known.append({"kind": "restore", "payload": {}, "answer": self._choose()})
        return known

    # -- questions of ranks ---------------------------------------------------------------------

    def on_call(self, call: Call) -> dict[str, Any] | None:
        answers = {
            "restore": self._on_restore,
            "data": self._references.on_data,
            "resolved": self._references.on_resolved,
            "find-published": self._releases.on_find,
            "wait-published": self._releases.on_wait,
            "publish": self._releases.on_publish,
        }
        return answers[call.kind](call)

    # -- restoring ------------------------------------------------------------------------------

    def _on_restore(self, call: Call) -> dict[str, Any] | None:
        if self._chosen is None and not self._settled():
            self._asked.append(call)
            return None
        return self._choose()

    def _settled(self) -> bool:
        """Nothing of an earlier attempt is still on its way to the store; or it does not matter,
        because what is in memory is newer."""
        if 0 < self.kept() >= max((step for _, step in self._handed), default=0):
            return True
        pending = {
            (attempt, step)
            for (attempt, step), ranks in self._handed.items()
            if attempt < self._control.attempt and len(ranks) == self._world_of(attempt)
        }
        return not pending - self._under_way.keys() or time.monotonic() - self._started_at > _SETTLE

    def _choose(self) -> dict[str, Any]:
        """The state in memory where it is newer, else the newest whole checkpoint; the same for all
        ranks of this attempt."""
        if self._chosen is None:
            with self._control.stores.meta.read() as db:
                rows = db.checkpoints(self._control.run_id)
                known = windows.read(db.get_run(self._control.run_id).result)
            rows += [
                row for row in self._under_way.rows() if not windows.is_inside(known, row.step)
            ]
            newest = max((row.step for row in rows), default=0)
            if self.kept() > newest and not windows.is_inside(known, self.kept()):
                return self._choose_memory(known)
            near = self._under_way.near()
            found = newest_whole(rows, near or self._control.stores.blobs)
            fell_back = found.checkpoint.step if found.checkpoint else 0
            for damage in found.damages:
                body = {**damage.as_dict(), "fell_back_to": fell_back, "what": str(damage)}
                self._control.event("checkpoint.damaged", body)
            digest = found.checkpoint.digest if found.checkpoint else None
            if digest is None and (forked := self._spec.get("forked_from")):
                raise _no_beginning(forked)
            left_out = windows.left_out(known, fell_back)
            fetched = near.fetched if near is not None else 0
            tier = tier_of(self._control.stores.blobs.url, fetched) if digest else None
            self._chosen = {"from": tier, "manifest": digest, "step": fell_back}
            self._chosen |= {"left_out": left_out, "near": near and str(near.folder)}
            self._under_way.drop(self._is_beyond)
            self._handed = {k: v for k, v in self._handed.items() if k[0] == self._control.attempt}
            self._parts = {k: v for k, v in self._parts.items() if k[0] == self._control.attempt}
        return self._chosen

    def _is_beyond(self, key: _Step) -> bool:
        """Whether it is an earlier attempt's, of a step that this attempt takes anew."""
        chosen, newest = self._chosen, self._control.attempt
        return chosen is not None and key[0] < newest and key[1] > chosen["step"]

    def _is_of_the_past(self, step: int) -> bool:
        """Whether an earlier attempt's checkpoint still is one of this run."""
        chosen = self._chosen
        return chosen is None or (chosen["from"] == "memory" and step <= chosen["step"])

    def _choose_memory(self, known: Sequence[windows.Window]) -> dict[str, Any]:
        """Checkpoints of earlier attempts that are still on their way are of this state's past."""
        kept = self._kept
        left_out = windows.left_out(known, kept.step)
        self._chosen = {"from": "memory", "gang": kept.gang, "step": kept.step}
        self._chosen["left_out"] = left_out
        self._kept = kept.tried()
        self._under_way.drop(self._is_beyond)
        return self._chosen

    # -- checkpoints ----------------------------------------------------------------------------

    def on_kept(self, gang: int, step: int, world_size: int) -> None:
        self._kept = self._kept.heard(gang, step, world_size)

    def on_handed(self, rank: int, step: int) -> None:
        self._handed.setdefault((self._control.attempt, step), set()).add(rank)
        self._last_save = time.monotonic()

    def on_sidecar(self, name: str, body: dict[str, Any]) -> None:
        key = (int(body["gang"]), int(body["step"]))
        if "delayed" in body:
            facts = {"step": key[1], "rank": body["rank"], "error": body["delayed"]}
            self._control.event("checkpoint.delayed", facts)
            return
        if body.get("staged") and "error" not in body:
            self._handed.pop(key, None)
            self._land()
            return
        if key[0] < self._control.attempt and not self._is_of_the_past(key[1]):
            return  # an earlier attempt's: what to go on from is decided without it
        rescued = body["extra"].get("rescued") and key[1] <= self._committed
        if self._is_void(key) or rescued:
            return
        if "error" in body:
            self._handed.pop(key, None)
            self._under_way.drop(lambda each: each == key)  # of a part alone nothing becomes
            self._control.event(
                "checkpoint.failed", {"step": key[1], "rank": body["rank"], "error": body["error"]}
            )
            return
        if self._under_way.is_used:
            self._under_way.add(body)
            self._land()
            return
        parts = self._parts.setdefault(key, {})
        parts[body["rank"]] = body
        world = self._world_of(key[0])
        if len(parts) == world:
            del self._parts[key]
            ordered = [parts[rank] for rank in range(world)]
            found = assembled(self._control, key[1], ordered, self._source)
            self._control.stores.blobs.put(found.manifest)
            self._commit(found, ordered)
            self._handed.pop(key, None)
            for old in [k for k in self._parts if k < key]:
                del self._parts[old]  # a step that some rank did not save is never whole

    def _land(self) -> None:
        """Commit what came by way of this machine's disk and is in the store now."""
        while (arrived := self._under_way.arrived()) is not None:
            key, found, parts = arrived
            rescued = found.extra.get("rescued") and key[1] <= self._committed
            if not (self._is_void(key) or self._is_beyond(key) or rescued):
                self._commit(found, parts)
                self._handed.pop(key, None)
            self._under_way.drop(lambda each, upto=key: each <= upto)  # type: ignore[misc]

    def waits(self, grace: float | None) -> bool:
        self._land()
        return self._under_way.is_waited_for(PATIENCE if grace is None else grace)

    def _commit(self, found: Assembled, parts: list[dict[str, Any]]) -> None:
        commit_checkpoint(self._control, found, self._origin)
        self._committed = max(self._committed, found.step)
        if (interval := self._pacing.saved(parts)) is not None:
            self._change_spec(interval=interval.as_dict())

    def tick(self, steps: list[int]) -> dict[str, Any] | None:
        if self._asked and self._settled():
            asked, self._asked = self._asked, []
            for call in asked:
                self._control.reply(call, self._choose())
        if self._under_way.is_putting:
            self._land()
        for slow in self._straggling.news():
            self._control.event("rank.straggling", slow)
        seconds = self._pacing.seconds
        if self._torn and steps:
            self._torn, self._last_save = False, time.monotonic()
            return {"save": True}
        if seconds is None or not steps or time.monotonic() - self._last_save < seconds:
            return None
        self._last_save = time.monotonic()
        return {"save": True}

    # -- reports --------------------------------------------------------------------------------

    def on_tell(self, rank: int, kind: str, payload: dict[str, Any]) -> None:
        if kind == "total" and rank == 0:
            self._change_spec(steps=payload["steps"])
        elif kind == "parts" and self._spec.get("elastic"):
            self._change_spec(elastic={**self._spec["elastic"], **payload})
        elif kind == "resumed":
            self._resumed(payload)
        elif kind in _TOLD:
            self._control.event(_TOLD[kind], {**payload, "attempt": self._control.attempt})
        elif kind == "raised" and payload["error"]["code"] == GradientsUnhealthy.code:
            self._go_back(payload["error"]["facts"])
        elif kind == "damaged":
            if self._chosen is not None and self._chosen["from"] == "memory":
                self._kept = self._kept.refused()
            self._control.event("checkpoint.damaged", {**payload["error"]["facts"], "rank": rank})
        elif kind == "torn":
            self._control.event("checkpoint.torn", {**payload, "rank": rank})
            self._torn = payload["again"] and self._world > 1  # a single rank saves by itself
        elif kind == "memory-degraded" and payload.get("copy"):
            about = {key: payload[key] for key in ("wanted", "room")}
            self._control.event("checkpoint.uncopied", {**about, "rank": rank})
            _log.warning("no room in memory for copies of other agents' states")
        elif kind == "memory-degraded":
            self._control.event("checkpoint.memory-degraded", {**payload, "rank": rank})
            _log.warning("no room in memory for checkpoints; they go through the disk")

    def _resumed(self, payload: dict[str, Any]) -> None:
        """Not always the newest: damage was met, or it was gone back."""
        control, number = self._control, self._control.attempt

        def change(tx: Writer) -> None:
            tx.began_at(control.run_id, number, int(payload["step"]))
            body = {**payload, "attempt": number}
            tx.event(f"run/{control.run_id}", "attempt.resumed", body)

        control.commit(change)

    def _go_back(self, facts: dict[str, Any]) -> None:
        """Every rank says it, and each once. What is still on its way from this gang to a step
        that is void will not become a checkpoint."""
        control = self._control
        if self._gone_back[0] == control.attempt:
            return
        self._gone_back = (control.attempt, go_back(control, facts, self._origin).after)
        self._handed = {key: ranks for key, ranks in self._handed.items() if not self._is_void(key)}
        self._under_way.drop(self._is_void)

    def _is_void(self, key: _Step) -> bool:
        """A checkpoint of a gang whose run went back beyond it."""
        attempt, after = self._gone_back
        return key[0] <= attempt and key[1] > after

    def _change_spec(self, **changes: Any) -> None:
        if all(self._spec.get(key) == value for key, value in changes.items()):
            return
        self._spec = {**self._spec, **changes}
        run_id = self._control.run_id

        def change(tx: Writer) -> None:  # others change it too: why it is to stop
            tx.change_run(run_id, spec={**tx.get_run(run_id).spec, **changes})

        self._control.commit(change)

    def drain(self) -> None:
        """Ranks see it in their shared words, after the same step."""

    def finish(self, results: dict[int, dict[str, Any]]) -> dict[str, Any]:
        self._finished = True
        return {"steps": results[0]["step"], "skipped": results[0]["skipped"]}

    def close(self) -> None:
        """Signals leave the run's folder: the rest to trackers, all into the blob store."""
        self._land()
        if self._forwarding is not None:
            self._straggling.close()
            self._forwarding.close(self._finished)
        control = self._control
        compiled.trim(control.stores.layout.compiled, control.stores.settings.compiled_bytes)
        if kept := keep(control.stores, control.run_id):
            self._control.commit(lambda tx: _refer(tx, control.run_id, kept))


def _no_beginning(forked: dict[str, Any]) -> Damaged:
    """A fork never begins at step 0: that would be another run under its name."""
    origin = f"{forked['name']}@{forked['step']}"
    return Damaged(
        f"no checkpoint of this run is whole, not even {origin}, from which it was forked",
        f"See what is left: penstock runs verify {forked['run']}; then fork it again.",
        **forked,
    )


def _refer(tx: Writer, run_id: str, signals: list[str]) -> None:
    tx.refer(f"run/{run_id}", signals)
    tx.event(f"run/{run_id}", "signals.kept", {"blobs": signals})
