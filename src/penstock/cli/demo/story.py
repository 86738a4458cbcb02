"""The demo's steps, in order. Each tells a few lines and leaves a few facts; any that falls short
makes the exit code 1."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import ExitStack
from typing import Any

from penstock.base.errors import BadInput, Refused, RunFailed
from penstock.base.hashing import short
from penstock.cli.demo.facts import Story, story_of
from penstock.cli.demo.project import Project
from penstock.cli.demo.requests import ask
from penstock.cli.demo.saboteur import Saboteur
from penstock.cli.demo.telling import Teller
from penstock.cli.demo.verdict import exit_code, judged
from penstock.cli.machine import dumps
from penstock.home import verbs
from penstock.home.local import LocalHome

_PAUSE = 0.012  # seconds a step, so that there is time to kill something at a step
_SLOW_PAUSE = 0.25


def run(slow: bool = False, home: str | None = None, as_json: bool = False) -> int:
    """Run it. Returns the exit code."""
    if home is not None:
        os.environ["PENSTOCK_HOME"] = home
    demo = Demo(Project(), Teller(quiet=as_json))
    with verbs.quietly():
        facts = demo.slowly() if slow else demo.tell()
    if as_json:
        sys.stdout.write(dumps(facts, indent=2) + "\n")
    return exit_code(facts)


class Demo:
    """One telling."""

    def __init__(self, project: Project, teller: Teller) -> None:
        self._project = project
        self._say = teller
        self._home: LocalHome = verbs.current()
        if not (where := self._home.stores.blobs.url).startswith("file://"):
            raise BadInput(
                f"the demo flips a bit in a file of its own blob store, and blobs are in {where}",
                "Run it where neither PENSTOCK_BLOBS nor penstock.toml names another store.",
                url=where,
            )
        self._facts: dict[str, Any] = {}
        self._reused: list[str] = []

    def tell(self) -> dict[str, Any]:
        began = time.monotonic()
        self._data()
        base = self._train()
        self._proof(base)
        self._gate(base)
        self._serve()
        self._why()
        self._facts["reused"] = set(self._reused) >= {"data", "base", "twin", "evaluation"}
        self._facts["reused_parts"] = self._reused
        self._facts["took_seconds"] = round(time.monotonic() - began, 1)
        self._facts = judged(self._facts)
        self._end()
        return self._facts

    # -- data -----------------------------------------------------------------------------------

    def _data(self) -> None:
        found = self._project.prepare()
        self._note("data", found.reused)
        splits = dict(sorted(found.version.summary["splits"].items(), key=lambda each: -each[1]))
        with self._home.stores.meta.read() as db:
            version = db.get_version("dataset", found.reference)
        doubled = _doubled_keys(self._home, version.digest)
        self._facts |= {"data": found.reference, "splits": splits, "keys_in_two_splits": doubled}
        parts = " · ".join(f"{name} {rows}" for name, rows in splits.items())
        keys = "no key in two splits" if not doubled else f"{doubled} KEYS IN TWO SPLITS"
        self._say("data", f"{found.reference}  {parts}; {keys}", found.reused)

    # -- training, killed twice -----------------------------------------------------------------

    def _train(self) -> Any:
        config = self._project.config(pause=_PAUSE)
        trained = self._sabotaged(config, fresh=False)
        story = story_of(self._home, trained.run.id, config.batch_size)
        if story is None:  # trained without the kills: by hand, or in a demo that was cut off
            trained = self._sabotaged(config, fresh=True)
            story = story_of(self._home, trained.run.id, config.batch_size)
        if story is None:
            raise RunFailed(
                "the record of the sabotaged training is not complete",
                "Look at it: penstock runs show base; then run the demo again.",
            )
        self._note("base", trained.reused)
        self._tell_training(trained, story)
        return trained

    def _sabotaged(self, config: Any, fresh: bool) -> Any:
        with self._home.stores.meta.read() as db:
            cursor = db.last_event()
            last = db.newest_run("base", "train")
        fresh = fresh or (last is not None and last.state != "finished")
        outcome: list[Any] = []
        thread = threading.Thread(target=self._run_base, args=(config, fresh, outcome))
        thread.start()
        saboteur = Saboteur(self._home, lambda kind, body: None)
        progress = self._say.progress("training, and killing it")
        with progress:
            while thread.is_alive():
                for event in self._home.events(after=cursor, wait=0.05):
                    cursor = event.seq
                    if event.kind == "run.created":
                        saboteur = Saboteur(self._home, lambda kind, body: None)
                    saboteur.hear(event)
                    if event.kind == "checkpoint.committed":
                        progress.at(event.body["step"], self._total(event.subject))
        thread.join()
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def _run_base(self, config: Any, fresh: bool, outcome: list[Any]) -> None:
        try:
            outcome.append(self._project.train("base", config, fresh=fresh))
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            outcome.append(error)

    def _total(self, subject: str) -> int | None:
        with self._home.stores.meta.read() as db:
            found = db.get_run(subject.removeprefix("run/")).spec.get("steps")
        return int(found) if found else None

    def _tell_training(self, trained: Any, story: Story) -> None:
        killed, damaged = story.killed, story.damaged
        say = self._say
        say(
            "train",
            f"run {trained.run.name} · {trained.run.spec['world_size']} ranks · "
            f"{story.steps} steps",
            trained.reused,
        )
        say("", f"$ kill -9 {killed['pid']:<28} <- on purpose, at step {killed['step']}")
        say(
            "",
            f"rank {killed['rank']} died by {killed['signal']}, seen after "
            f"{story.seen * 1000:.0f} ms; resumed at step {story.resumed}; "
            f"next step after {story.recovery:.2f} s",
        )
        say("", f"$ flip one bit in checkpoint {damaged['step']}, kill -9 both ranks")
        say(
            "",
            f"chunk {damaged['chunk']} of checkpoint {damaged['step']} is damaged; "
            f"fell back to {damaged['fell_back_to']}",
        )
        lost = f"samples lost {story.lost} · repeated {story.repeated}"
        say("", f"step {story.steps} · {lost}")
        self._facts |= {
            "run": trained.run.id,
            "steps": story.steps,
            "recovery_seconds": round(story.recovery, 4),
            "seen_seconds": round(story.seen, 4),
            "killed_ranks": story.kills,
            "resumed_at": story.resumed,
            "damaged_checkpoint": damaged["step"],
            "damaged_chunk": damaged["chunk"],
            "fell_back_to": damaged["fell_back_to"],
            "samples_lost": story.lost,
            "samples_repeated": story.repeated,
        }

    def _proof(self, base: Any) -> None:
        with self._say.progress("training its twin, undisturbed"):
            twin = self._project.train("twin", self._project.config(pause=_PAUSE))
        self._note("twin", twin.reused)
        with self._home.stores.meta.read() as db:
            attempts = len(db.attempts(twin.run.id))
        ours, theirs = base.run.result["weights"], twin.run.result["weights"]
        equal = ours == theirs and base.run.id != twin.run.id and attempts == 1
        self._facts |= {"bit_equal": equal, "weights": ours, "twin_weights": theirs}
        self._facts["twin_run"] = twin.run.id
        self._say("proof", f"undisturbed twin   weights sha256 {short(theirs)}…", twin.reused)
        verdict = "IDENTICAL" if equal else "DIFFERENT"
        self._say("", f"killed twice       weights sha256 {short(ours)}…   {verdict}", good=equal)

    # -- evaluation and promotion ---------------------------------------------------------------

    def _gate(self, base: Any) -> None:
        with self._say.progress("evaluating"):
            report = self._project.evaluate(base.model)
        self._note("evaluation", report.reused)
        accuracy = report.metrics["accuracy"]
        self._say("eval", report.line(), report.reused)
        gate = "PASS" if report.passed else "BLOCKED"
        if report.passed:
            verbs.promote(base.model, "production", evidence=report)
        wanted = report.gates[0]
        self._say(
            "gate",
            f"{base.model} {wanted.gate}   {gate}" + (" -> production" if report.passed else ""),
            good=report.passed,
        )
        self._facts |= {
            "model": base.model,
            "test_accuracy": {
                "value": accuracy.value,
                "low": accuracy.low,
                "high": accuracy.high,
                "n": accuracy.n,
            },
            "gate": gate,
        }
        self._blocked()

    def _blocked(self) -> None:
        """A model that learned from shuffled labels must not get through."""
        with self._say.progress("training one on shuffled labels"):
            bad = self._project.train(
                "shuffled", self._project.config(shuffle_labels=True, epochs=4)
            )
            report = self._project.evaluate(bad.model)
        try:
            verbs.promote(bad.model, "production", evidence=report)
            blocked = False
        except Refused:
            blocked = True
        value = report.metrics["accuracy"].value
        self._facts["blocked_gate"] = {"model": bad.model, "accuracy": value, "blocked": blocked}
        verdict = f"BLOCKED {value:.2f}" if blocked else "PROMOTED"
        text = f"{bad.model} (labels shuffled, on purpose)   {verdict}"
        self._say("", text, bad.reused and report.reused, good=blocked)

    # -- serving --------------------------------------------------------------------------------

    def _serve(self) -> None:
        images = _images(self._home)
        offline = verbs.load("digits-cnn@production")(images)
        with ExitStack() as stack:
            stack.enter_context(self._say.progress("serving"))
            address = stack.enter_context(verbs.serve("digits", "digits-cnn@production"))
            served = ask(address, "digits", images, offline)
        equal = "equal to offline" if served.equal else f"NOT EQUAL TO OFFLINE ({served.apart})"
        self._say(
            "serve",
            f"{served.sent} requests by tritonclient · failed {served.failed} · {equal}",
            good=served.equal and not served.failed,
        )
        self._facts |= {
            "served_requests": served.sent,
            "failed_requests": served.failed,
            "served_equals_offline": served.equal,
            "served_apart": served.apart,
        }

    def _why(self) -> None:
        from penstock import registry

        with self._home.stores.meta.read() as db:
            line = registry.why(db, self._home.stores.blobs, "digits-cnn@production").line()
        self._facts["why"] = line
        self._say("why", line)

    # -- the end --------------------------------------------------------------------------------

    def _note(self, part: str, reused: bool) -> None:
        if reused:
            self._reused.append(part)

    def _end(self) -> None:
        took = f"{self._facts['took_seconds']:.0f} s"
        if self._facts["reused"]:
            took += " · reused, with the figures of the first time"
        self._say("took", f"{took} · not shown: GPUs, several machines, large models")
        if not self._facts["ok"]:
            missed = ", ".join(self._facts["fell_short"])
            self._say("", f"NOT KEPT: {missed}; the exit code says so", good=False)
        self._say.plain(
            "Don't trust us: penstock demo --slow, and in another terminal "
            "kill -9 $(penstock runs pids)"
        )

    def slowly(self) -> dict[str, Any]:
        """Train for minutes, and go on whenever somebody killed everything."""
        self._data()
        config = self._project.config(pause=_SLOW_PAUSE)
        self._say("train", "run slow · in another terminal: kill -9 $(penstock runs pids)")
        while True:
            try:
                with verbs.quietly(False):
                    trained = self._project.train("slow", config)
                break
            except RunFailed as error:
                self._say("", f"{error.what}; going on, as running the script again would")
        weights = short(trained.run.result["weights"])
        self._say("", f"finished · weights sha256 {weights}…", trained.reused)
        with self._home.stores.meta.read() as db:
            base = db.newest_run("base", "train")
        if base is not None and base.state == "finished":
            equal = base.result["weights"] == trained.run.result["weights"]
            verdict = "IDENTICAL" if equal else "DIFFERENT"
            self._say("proof", f"the demo's run     weights {verdict}", good=equal)
            return {"ok": equal, "bit_equal": equal, "run": trained.run.id}
        return {"ok": True, "run": trained.run.id}


def _images(home: LocalHome) -> Any:
    """The test split's images, float32 [N, 8, 8]."""
    from penstock.data import read_manifest, read_split, to_numpy

    with home.stores.meta.read() as db:
        version = db.get_version("dataset", "digits")
    manifest = read_manifest(home.stores.blobs, version.digest)
    table = read_split(home.stores.blobs, manifest, "test", ["image"])
    return to_numpy(table, manifest.columns)["image"]


def _doubled_keys(home: LocalHome, digest: str) -> int:
    """Keys that are in more than one split, counted in the data itself."""
    from penstock.data import read_manifest, read_split

    manifest = read_manifest(home.stores.blobs, digest)
    seen: set[Any] = set()
    doubled = 0
    for split in manifest.splits:
        column = read_split(home.stores.blobs, manifest, split, [manifest.key])[manifest.key]
        keys = set(column.to_pylist())
        doubled += len(keys & seen)
        seen |= keys
    return doubled
