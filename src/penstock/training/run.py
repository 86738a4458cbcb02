"""What the user's training function gets: one object through which a step is durable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Unpack

import torch

from penstock.base.errors import BadInput
from penstock.base.layout import Layout
from penstock.blobs import Blobs
from penstock.jobs.link import Link
from penstock.jobs.words import CHECKPOINT, EVALUATE, PUBLISH
from penstock.training import amounts, group, hyperparameters, randomness
from penstock.training.accounting import COMPARING, Accounts
from penstock.training.caching import NodeCache
from penstock.training.comparing import compare
from penstock.training.data import Reading
from penstock.training.distributing import Distribution, Strategy, check_parameters
from penstock.training.elastic import Sizes
from penstock.training.evaluating import evaluating, rewound, summed
from penstock.training.health import Health
from penstock.training.micro import MicroBatches, Reduction
from penstock.training.precision import Precision
from penstock.training.publishing import Publisher
from penstock.training.restoring import Restorer
from penstock.training.saving import Saver, Tier
from penstock.training.scalars import Scalars
from penstock.training.tracked import Tracked
from penstock.training.updating import Updates

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from penstock.data.pipeline.options import Options


class Drained(BaseException):
    """Raised inside `run.steps` when the run is to stop; a BaseException, so that a loop's own
    `except Exception` does not swallow it."""


class Run:
    """One rank's side of a run.

    rank, world_size  this process's place in the gang
    device            where `distribute` puts models: a GPU where each rank has one, else the CPU
    global_step       completed optimiser steps, also those of earlier attempts
    skipped           steps not taken because gradients were unhealthy, counted likewise
    id, name, seed    of the run
    """

    def __init__(
        self, link: Link, blobs: Blobs, layout: Layout, payload: dict[str, Any], emitter: Any
    ) -> None:
        self.id = link.run_id
        self.name: str = payload["name"]
        self.rank = link.rank
        self.world_size = link.world_size
        self.seed: int = payload["seed"]
        self.global_step = 0
        self.device = group.device(*link.local, payload)
        self.published: str | None = None
        self._link = link
        self._publisher = Publisher(link, blobs, layout, payload["source"])
        self._restorer = Restorer(link, blobs, self.seed, payload.get("init_from"))
        self._emitter = emitter
        self._tracked = Tracked()
        self._models: list[torch.nn.Module] = []
        self._laid = Distribution(self.device, link.world_size)
        self._loaders: list[Any] = []
        self._reading = Reading(link, blobs, layout, self.seed, self.device, payload["paths"])
        self._sizes = Sizes(**payload["elastic"]) if payload.get("elastic") else None
        self._scalars = Scalars(emitter)
        self._updates = Updates(self._tracked, self._laid, link.world_size)
        self._accounts = Accounts(emitter, link.pulse, self.device)
        self._caching = NodeCache(link, layout, emitter)
        waiting = partial(self._accounts.during, CHECKPOINT)
        self._saver = Saver(link, payload["every_steps"], payload["memory_every"], waiting)
        self._constructed: dict[str, hyperparameters.Groups] = {}
        self._inside = False
        self._compare_every = 0
        self._left_out: list[tuple[int, int]] = []
        self._micro: MicroBatches | None = None

    @property
    def skipped(self) -> int:
        return self._updates.skipped

    # -- building -------------------------------------------------------------------------------

    def distribute(
        self,
        model: torch.nn.Module,
        strategy: Strategy = "auto",
        mesh: DeviceMesh | None = None,
        **options: Any,
    ) -> torch.nn.Module:
        """The model on this rank's device.

        strategy  "ddp", what "auto" is without a mesh: all of it on every rank; options are those
                  of DistributedDataParallel. "plain": likewise, the loop does the communication
                  "fsdp": a shard of it, its gradients and optimiser on every rank; `wrap` is a
                  class, several, or a function of a module (default: the repeated blocks); other
                  options are those of `fully_shard`. Make the optimiser afterwards
        mesh      for "fsdp", a DeviceMesh of one's own. Raises BadInput.
        """
        wrapped = self._laid.distribute(model, strategy, mesh, options)
        self._models.append(wrapped)
        self._accounts.watch(wrapped, self.device)
        return wrapped

    def data(
        self,
        source: Any,
        *,
        batch_size: int,
        samples: Any = None,
        columns: Sequence[str] | None = None,
        expect: Any = None,
        **options: Unpack[Options],
    ) -> Any:
        """This rank's part of every global batch.

        source      NAME[@VERSION]:SPLIT of a dataset (a bare name resolves once, and the run
                    remembers to what); a Mix of such; a torch Dataset; or any `data.Source`
        batch_size  samples of a global batch: the same at every world size
        samples     Windows, Pack or Buckets, where samples are not rows
        columns     only these; default: all
        expect      expectations, or their file: before the first batch the whole version is held
                    against them, once; "refuse" raises Refused, rows that "quarantine" names are
                    left out, all else is said
        options     see `penstock.data.pipeline.options.Options`: epochs, shuffle, filter, map,
                    workers, …; the seed is the run's unless given
        Iterating gives dicts of tensors, [B / world_size, ...], on `run.device`.
        """
        self._caching.begin()
        reading = self._reading.expecting(expect)
        loader = reading.loader(source, batch_size, samples, columns, options)
        self._loaders.append(loader)
        return loader

    def close(self) -> None:
        """End what reads data; the run itself goes on to its end without it."""
        for loader in self._loaders:
            loader.close()
        self._caching.tell(self.global_step, at_once=True)

    def track(self, **objects: Any) -> None:
        """Name what a checkpoint holds: models, optimisers, schedulers, loaders, and whatever
        has `state_dict()` and `load_state_dict()`. Random states are held anyway."""
        if self._inside:
            raise BadInput("run.track was called inside the loop", "Call it before run.steps.")
        self._tracked.add(**objects)

    def flops(self, per_step: float | Literal["count"], dtype: amounts.Dtype | None = None) -> None:
        """Say what a step computes, so that the account has FLOPs per second and MFU.

        per_step  FLOPs of one optimiser step of all ranks together; or "count": each rank counts
                  its own in the first step of each attempt, which makes that step slower
        dtype     of its products, where they are not those of float32 parameters: under autocast,
                  say; the peak of a GPU depends on it
        Raises BadInput.
        """
        self._accounts.amounts.flops(per_step, self.world_size, self.device, dtype)

    # -- the loop -------------------------------------------------------------------------------

    def steps(
        self,
        source: Any,
        micro_batches: int | None = None,
        reduction: Reduction = "mean",
        compare_every: int = 1000,
        spikes: float | None = None,
        patience: int = 10,
        tokens: Callable[[Any], int] | None = None,
    ) -> Iterator[Any]:
        """Iterate over a loader's batches, or over `range(n)` when given a number.

        Restores the newest checkpoint first; after each step: progress, signals, a checkpoint
        when one is due, and a clean end when the run is to stop.

        micro_batches  V: a global batch is given in V equal parts, V / world_size of them to this
                       rank, one by one; `step` acts with the last. A multiple of the ranks
                       Default: high, with workers=(low, high); else the batch is not parted
        reduction      "mean"; or "ordered": the gradients' sum, and with it the weights, is bit for
                       bit the same at any number of ranks (see `micro`)
        compare_every  steps between two comparisons of all ranks' parameters, the first after step
                       1; 0: never
        spikes         `step` leaves out a gradient whose norm is more than so many times the usual
                       one; None: only one that is not finite
        patience       so many steps left out in a row, and the run goes back to a checkpoint before
                       them and drops the batches in between; 0: never
        tokens         how many a batch of this rank has, where tokens per second are of interest
        Raises BadInput, RanksDiverged, GradientsUnhealthy.
        """
        if not self._tracked.objects:
            raise BadInput(
                "nothing is tracked, so nothing could be resumed",
                "Call run.track(model=model, optimizer=optimizer, train=train) before run.steps.",
            )
        counted = isinstance(source, int)
        if not counted and not self._tracked.holds(source) and hasattr(source, "state"):
            self._tracked.add(steps=source)
        if self._sizes is not None:
            micro_batches = self._shared_out(micro_batches, reduction)
        if micro_batches is not None:
            self._micro = MicroBatches(
                micro_batches, reduction, self.rank, self.world_size, self.seed
            )
        elif reduction != "mean":
            raise BadInput(
                f'reduction="{reduction}" says nothing without micro-batches',
                "Say micro_batches=, a number that stays when the ranks change.",
            )
        self._compare_every = compare_every
        self._accounts.amounts.tokens = tokens
        self._updates.health = Health(spikes, patience)
        self._constructed = hyperparameters.constructed(self._tracked.objects)
        check_parameters(self._models, self._tracked.optimizers())
        self._restore()
        total = 0
        if not getattr(source, "endless", False):
            total = source if counted else (self.global_step + len(source) - _position(source))
            self._link.tell("total", {"steps": int(total)})
        self._inside = True
        self._saver.begin(self._tracked.optimizers())
        try:
            items = range(self.global_step, total) if counted else source
            for batch in self._accounts.timed(items, self.global_step):
                if self._is_left_out():
                    self._updates.health.forget()
                elif self._micro is None:
                    yield batch
                else:
                    yield from self._micro.parts(batch, self.global_step, self._models)
                self._end_step()
        finally:
            self._link.pulse.over()  # also where the loop was left early
            self._saver.end()
            self._accounts.over()
        self._inside = False
        if self.global_step == 0 and not counted:
            raise BadInput("the data has no batch, so nothing was trained", "Is it empty?")
        if not self._saver.saved(self.global_step):
            self._save("disk", at_once=True)
        self._settle()

    def autocast(self, precision: Precision = "bf16") -> torch.autocast:
        """`torch.autocast` on this rank's device, around forward and loss. With "fp16", `backward`
        and `step` scale the loss; the scale is in checkpoints. "fp32" changes nothing."""
        return self._updates.mixed.autocast(precision, self.device)

    def backward(self, loss: torch.Tensor) -> None:
        """Back-propagate the mean loss of the batch at hand."""
        self._saver.poll()
        loss = self._updates.mixed.scaled(loss if self._micro is None else self._micro.scaled(loss))
        self._accounts.exchanging(loss.backward)

    def step(self, optimizer: torch.optim.Optimizer, clip: float | None = None) -> bool:
        """Apply the gradients, then clear them; skipped, and counted, when they are unhealthy.

        clip     largest global norm of the gradients, over all of this optimiser's parameters
        returns  whether the step was taken. Gradients are equal on all ranks, so all agree. With
                 micro-batches it is taken with the last one of a step
        """
        name = self._updates.name_of(optimizer)
        if self._micro is not None and not self._accounts.exchanging(
            self._micro.complete, optimizer
        ):
            return False
        outcome = self._updates.step(name, optimizer, clip)
        if outcome == "unhealthy":
            self.log({"penstock/skipped_steps": float(self.skipped)})
        return outcome == "taken"

    def every(self, steps: int) -> bool:
        """True in every n-th step, counted over all attempts: the n-th, the 2n-th, …; once a step,
        with its last micro-batch."""
        if steps < 1:
            raise BadInput(f"run.every({steps}) never comes", "Give 1 or more.")
        if self._micro is not None and not self._micro.last:
            return False
        return (self.global_step + 1) % steps == 0

    def log(self, values: Mapping[str, float | torch.Tensor]) -> None:
        """Tell scalars of this step. Never waits for a device: a tensor there is read later. What
        several micro-batches of a step tell is kept as its mean."""
        self._scalars.log(self.global_step + 1, values, self._micro)

    def evaluate(self, function: Callable[[Any], Any], source: Iterable[Any]) -> float:
        """The mean of `function(batch)` over all ranks' batches, models in eval mode.

        function  gives a value per sample (a tensor [B]) or the batch's mean (a number)
        Random states, the loader's cursor and the models' modes are afterwards as before.
        """
        with self._accounts.during(EVALUATE):
            models = [*self._tracked.models(), *self._models]
            group.equal_buffers(models, self.world_size)
            beat = self._link.pulse.beat
            with randomness.untouched(), evaluating(models), rewound(source), torch.no_grad():
                own = summed(function, source, each=lambda: beat(EVALUATE))
            total, count = group.total(own, self.world_size)
        if count == 0:
            raise BadInput("run.evaluate saw no sample", "Is the split empty?")
        return total / count

    def keep_best(self, name: str, larger: bool = True) -> bool:
        """Keep this step's checkpoint when the metric logged in it is the best so far.

        larger   whether more is better
        returns  whether it was the best
        """
        return self._scalars.keep_best(self.global_step + 1, name, larger)

    def publish(
        self, name: str, model: torch.nn.Module, example: Any, *, inputs: list[str] | None = None
    ) -> str:
        """Make a model version of this model as it is now; once per run and name.

        example  a batch as the model gets it (see registry.package); `loader.example()` gives one
        inputs   entries of the example that go into `forward`; default: those it accepts
        returns  the reference, "NAME@VERSION", on every rank
        """
        with self._accounts.during(PUBLISH):
            group.equal_buffers([model], self.world_size)
            whole = self._laid.whole(model, keep=self.rank == 0)
            found = self._publisher.publish(name, whole, example, inputs, self.global_step)
        self.published = found
        return found

    # -- inside ---------------------------------------------------------------------------------

    def _restore(self) -> None:
        """The checkpoint that the controller chose, or the beginning; equal on all ranks."""
        held = self._restorer.restore(self._tracked, self._constructed)
        self.global_step, self._scalars.best = held.step, held.best
        self._left_out = held.left_out
        self._updates.load(held.skipped, held.health, held.mixed)

    def _shared_out(self, micro_batches: int | None, reduction: Reduction) -> int:
        """V of a run whose number of ranks may change. Where this number cannot share it, another
        gang takes over, and nothing was lost; where none can, the caller says so."""
        assert self._sizes is not None
        parts = micro_batches or self._sizes.high
        sizes = replace(self._sizes, parts=parts, ordered=reduction == "ordered")
        if self.rank == 0:
            self._link.tell("parts", {"parts": parts, "ordered": sizes.ordered})
        if not sizes.fits(self.world_size) and sizes.at_most(sizes.high) is not None:
            raise Drained
        return parts

    def _is_left_out(self) -> bool:
        """Whether the batch at hand is one of those that the run went back over."""
        step = self.global_step + 1
        return any(first <= step <= last for first, last in self._left_out)

    def _end_step(self) -> None:
        step = self.global_step + 1
        if (scale := self._updates.mixed.end_step()) is not None:
            self._scalars.tell(step, {"penstock/loss_scale": scale})
        self._scalars.end_step(step)
        self.global_step = step
        self._link.step_done(step)
        self._link.pulse.step_done()
        if self._first:
            self._begun()
        every = self._compare_every
        if every and (step == 1 or step % every == 0):
            with self._accounts.span(COMPARING):
                compare(self._tracked.named_models(), self.world_size, step)
        self._updates.health.end_step(step)
        drain_at = self._link.drain_at()
        draining = 0 < drain_at <= step
        exactly = draining or self._scalars.best_now is not None  # no later step's will do
        if (due := "disk" if exactly else self._saver.due(step)) is not None:
            self._save(due, at_once=exactly)
        if draining:
            self._settle()
        self._caching.tell(step)
        self._accounts.step_done(step)
        if draining:
            raise Drained

    _first = True

    def _begun(self) -> None:
        """The first step of this attempt is complete: what checkpoints hold has its size now."""
        self._first = False
        if self.rank == 0:
            self._link.tell("stepping", {"step": self.global_step, "at": time.time()})
        self._saver.prepare(*self._state())

    def _state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is equal on all ranks, and what is this one's own."""
        told = {"best": dict(self._scalars.best), "constructed": self._constructed}
        shared = {"tracked": self._tracked.state(), **told, **self._updates.state()}
        return shared, {"random": randomness.capture()}

    def _save(self, tier: Tier, at_once: bool = False) -> None:
        with self._accounts.during(CHECKPOINT):
            group.equal_buffers(self._tracked.models(), self.world_size)
            extra = {"best": self._scalars.best_now, "metrics": self._scalars.known()}
            shared, own = self._state()
            self._saver.save(self.global_step, shared, own, extra, tier, at_once)
        self._scalars.best_now = None

    def _settle(self) -> None:
        """Wait until all that was saved and logged is on its way no more."""
        with self._accounts.during(CHECKPOINT):
            self._saver.settle()
        self._scalars.settle()


def _position(source: Any) -> int:
    """How many of a loader's steps lie behind its cursor."""
    return int(source.state()["next"]) if hasattr(source, "state") else 0
