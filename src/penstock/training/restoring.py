"""Where a rank's loop begins: at the checkpoint that the controller chose, or with the weights that
`init_from` named, or at nothing. The same on all ranks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.blobs import Blobs
from penstock.jobs.link import Link
from penstock.training import hyperparameters, randomness
from penstock.training.tracked import Tracked

if TYPE_CHECKING:
    from penstock.checkpoints import State
    from penstock.checkpoints.reader import Onto


@dataclass(frozen=True, slots=True)
class Held:
    """What a checkpoint holds beside the tracked objects; as it stands here: of a new run.

    step     completed optimiser steps
    best     metric -> the best value that `keep_best` saw
    skipped  steps not taken because gradients were unhealthy
    health   `Health.state`
    mixed    `Mixed.state`
    left_out  [(first, last)] of the steps to come whose batches are dropped; told by the controller
    """

    step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    health: dict[str, Any] | None = None
    mixed: dict[str, Any] | None = None
    left_out: list[tuple[int, int]] = field(default_factory=list)


class Restorer:
    """One rank's. `initial` is what `init_from` resolved to."""

    def __init__(self, link: Link, blobs: Blobs, seed: int, initial: dict[str, Any] | None) -> None:
        self._link = link
        self._blobs = blobs
        self._seed = seed
        self._initial = initial

    def restore(self, tracked: Tracked, constructed: dict[str, hyperparameters.Groups]) -> Held:
        """Put the state into what is tracked, and the random states back. Without a checkpoint
        this rank's own stream of random numbers begins. Raises Damaged, BadInput."""
        link = self._link
        chosen = link.call("restore", {})
        left_out = [(first, last) for first, last in chosen["left_out"]]
        if chosen["from"] is None:
            self._begin(tracked)
            randomness.seed_all(self._seed, "rank", link.rank)
            return Held(left_out=left_out)
        step, state = self._read(chosen, tracked.onto())
        tracked.load(state.shared["tracked"], step)
        then = state.shared.get("constructed", {})  # none in those of earlier versions
        changed = hyperparameters.put_changes(tracked.objects, then, constructed)
        if state.own is not None:
            randomness.put_back(state.own["random"])
        else:
            randomness.seed_all(self._seed, "rank", link.rank, link.world_size, step)
        if link.rank == 0:
            told = {"changed": changed} if changed else {}
            link.tell("resumed", {"step": step, "from": chosen["from"], **told})
        skipped = int(state.shared.get("skipped", 0))  # none in those of earlier versions
        health = state.shared.get("health")  # likewise
        mixed = state.shared.get("mixed")  # likewise
        return Held(step, dict(state.shared["best"]), skipped, health, mixed, left_out)

    def _read(self, chosen: dict[str, Any], onto: Onto) -> tuple[int, State]:
        """(step, state) of what the controller chose: slots in memory, or a manifest's blobs."""
        from penstock.checkpoints import Near, Slots, load, read_manifest

        link = self._link
        if chosen["from"] == "memory":
            lent = link.lent(chosen["gang"], chosen["step"])
            maps, seals = [each.memory for each in lent], [each.seal for each in lent]
            slots = Slots(link.run_id, chosen["step"], maps, seals, link.world_size)
            state = load(slots, slots.manifest, link.rank, link.world_size, onto)
            slots.close()
            return chosen["step"], state
        near = Near(Path(chosen["near"]), self._blobs) if chosen.get("near") else self._blobs
        manifest = read_manifest(near, chosen["manifest"])
        return manifest.step, load(near, manifest, link.rank, link.world_size, onto)

    def _begin(self, tracked: Tracked) -> None:
        """Put the weights that `init_from` resolved to into the tracked models, if it did."""
        if self._initial is None or self._initial["kind"] is None:
            return
        from penstock.training import warm

        weights = warm.read(self._blobs, self._initial, tracked.onto())
        count = warm.put(tracked.named_models(), weights, self._initial)
        if self._link.rank == 0:
            self._link.tell("initialised", {"from": warm.text_of(self._initial), "tensors": count})
