"""Batches of a split, as this rank's part of each global batch.

Which samples are in a batch is a function of the data specification (content, split, seed, epoch,
global batch, shuffle, filter, mixture, last batch) and nothing else; where it continues is a few
integers, valid at any world size and any number of workers. Batches are made ahead of the step;
what is made ahead never moves that place.

Letters: B global batch, W ranks, b = this rank's rows of a batch (B / W; see `order.rank_slice`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from penstock.base.errors import BadInput
from penstock.base.layout import Layout
from penstock.blobs import Blobs
from penstock.data.manifest import Manifest
from penstock.data.mixing import Mix
from penstock.data.order import Order, Rows
from penstock.data.pipeline.feeding import Kitchen
from penstock.data.pipeline.joined import JoinedSource
from penstock.data.pipeline.opening import Itself, Joined, Opening, Shards
from penstock.data.pipeline.options import Options
from penstock.data.pipeline.plan import Counts, MixPlan, OrderPlan, Plan
from penstock.data.pipeline.planning import mix_plan, plan_of
from penstock.data.pipeline.threads import Feeder
from penstock.data.source import ShardSource, Source

if TYPE_CHECKING:
    import torch

Batch = dict[str, "torch.Tensor | list[Any]"]

_MIXED = "mixed_"  # in a state: samples that each source of a mixture has given


class Loader:
    """Iterate it: each step gives {column: tensor [b, *shape], or list of b values}, or what
    `collate` makes of it.

    batch_size  B, of all ranks together
    columns     only these; default: all
    name        of the version, for messages
    options     see `Options`: epochs, seed, shuffle, filter, map, workers, …

    Iterating goes on from where the loader stands and moves it, before a batch is handed out. A
    loader that was iterated to its end starts again at the next `iter`; one that `load_state` put
    at the end is at the end.

    Threads that make batches live as long as an iteration; workers and the source until `close`,
    or as long as the loader. Not for several threads.

    Raises BadInput (B does not divide by W, B larger than the split, options that contradict each
    other), NotFound (split, column), UserCodeFailed (a function of the user's raised: with its own
    traceback, the row and its key) and Damaged before the first batch that would need a damaged
    shard.
    """

    def __init__(
        self,
        blobs: Blobs,
        layout: Layout,
        manifest: Manifest,
        split: str,
        *,
        batch_size: int,
        columns: Sequence[str] | None = None,
        name: str = "",
        **options: Unpack[Options],
    ) -> None:
        source = ShardSource(blobs, layout, manifest, split, columns=columns, name=name)
        options.setdefault("size", manifest.split(split).bytes)
        options.setdefault("key", manifest.key)
        options.setdefault("index", layout.samples)
        names = tuple(each.name for each in source.columns)
        opening = Shards(blobs.url, str(layout.root), manifest.digest, split, names, name)
        self._begin(source, plan_of(source, batch_size, options), batch_size, opening, options)

    @classmethod
    def over(
        cls,
        source: Any,
        *,
        batch_size: int,
        opening: Opening | None = None,
        **options: Unpack[Options],
    ) -> Loader:
        """A loader over any `Source` (its identity, length and `gather` will do), which it closes
        with itself; all else as above.

        opening  how workers open the same source; default: the source itself travels
        """
        made = cls.__new__(cls)
        plan = plan_of(source, batch_size, options)
        made._begin(source, plan, batch_size, opening or Itself(source), options)
        return made

    @classmethod
    def mixed(
        cls,
        sources: Mapping[str, Source],
        mix: Mix,
        *,
        batch_size: int,
        openings: Mapping[str, Opening] | None = None,
        sizes: Mapping[str, int] | None = None,
        **options: Unpack[Options],
    ) -> Loader:
        """A loader over several sources, all of which have the same columns.

        sources  by the names that the mixture has
        sizes    bytes of each in memory, by which shuffle=True decides for each
        Each source has an order of its own, and begins its next epoch when it is used up;
        `epochs` counts passes over the sources, as `mix.until` says.
        """
        if set(sources) != set(mix.names):
            raise BadInput(
                f"the mixture is of {', '.join(mix.names)}, the sources are {', '.join(sources)}",
                "Give a source for each name.",
            )
        made = cls.__new__(cls)
        sources = {name: sources[name] for name in mix.names}
        joined = JoinedSource(sources)
        each_size = [(sizes or {}).get(name, 0) for name in sources]
        plan = mix_plan(sources, mix, batch_size, options, each_size)
        opening = Joined({n: (openings or {}).get(n, Itself(s)) for n, s in sources.items()})
        made._begin(joined, plan, batch_size, opening, options)
        return made

    def _begin(
        self,
        source: Any,
        plan: Plan,
        batch_size: int,
        opening: Opening,
        options: Options,
    ) -> None:
        self.epochs = options.get("epochs", 1)
        self._source = source
        self._plan = plan
        self._batch = batch_size
        self._seed = options.get("seed", 0)
        self._kitchen = Kitchen(source, plan, opening, options)
        self._next = 0
        self._counts: Counts = ()
        self._ended = False

    # how far

    @property
    def order(self) -> Order:
        """Of one source. Raises BadInput for a mixture, each of whose sources has its own."""
        if not isinstance(self._plan, OrderPlan):
            raise BadInput("a mixture has no single order", "Ask its sources': loader.orders.")
        return self._plan.order

    @property
    def orders(self) -> Mapping[str, Order]:
        """Of each source of a mixture, whose batches are not its own; {} for one source."""
        return self._plan.orders if isinstance(self._plan, MixPlan) else {}

    def __len__(self) -> int:
        """Steps of all epochs together. Raises BadInput for a mixture without end."""
        if self._plan.steps is None:
            raise BadInput(
                "a mixture without end has no number of steps",
                'Take until="first" or "all", or break off the loop yourself.',
            )
        return self._plan.steps

    @property
    def endless(self) -> bool:
        return self._plan.steps is None

    @property
    def steps_per_epoch(self) -> int:
        """Of a mixture: until it would end with epochs=1."""
        return self._plan.steps_per_epoch

    @property
    def batch_size(self) -> int:
        """B, of all ranks together."""
        return self._batch

    @property
    def epoch(self) -> int:
        """Of the batch in hand, from 0; before the first batch: of the first to come."""
        epoch = max(0, self._next - 1) // self.steps_per_epoch
        return epoch if self.endless else min(epoch, max(0, len(self) - 1) // self.steps_per_epoch)

    def state(self) -> dict[str, int]:
        """Where it stands: the next global batch, what its number is worth, and of a mixture how
        many samples each source has given."""
        counts = self._plan.counts(self._next) if not self._counts else self._counts
        return {
            "next": self._next,
            "rows": len(self._source),
            "batch_size": self._batch,
            "seed": self._seed,
            "order": self._plan.fingerprint,
            **{f"{_MIXED}{number}": count for number, count in enumerate(counts)},
        }

    def load_state(self, state: Mapping[str, int]) -> None:
        """Stand where `state` says; any world size, any number of workers. BadInput when it counts
        other batches."""
        mine = self.state()
        if state["order"] != mine["order"]:
            told = [
                f"{what} {state[what]} became {mine[what]}"
                for what in ("rows", "batch_size", "seed")
                if state[what] != mine[what]
            ]
            raise BadInput(
                "the saved place counts batches of another order: "
                + (", ".join(told) or "other data, shuffle, drop_last, filter or mixture"),
                "Use the data and loader options of the run that saved it, or start a new run.",
                saved=dict(state),
                here=mine,
            )
        self._next = state["next"]
        self._counts = ()
        self._plan.recall(
            self._next, tuple(state[name] for name in state if name.startswith(_MIXED))
        )
        self._ended = False

    # batches

    def __iter__(self) -> Iterator[Any]:
        if self._ended:
            self._next, self._counts, self._ended = 0, (), False
        feeder: Feeder | None = None
        steps = self._plan.steps
        try:
            while steps is None or self._next < steps:
                if feeder is None or feeder.step != self._next:  # moved meanwhile by load_state
                    if feeder is not None:
                        feeder.close()
                    feeder = self._kitchen.feeder(self._next, steps)
                ready = feeder.take()
                self._next, self._counts = ready.step + 1, ready.counts
                yield ready.batch
        finally:
            if feeder is not None:
                feeder.close()
        self._ended = True

    def sweep(self, epoch: int = 0) -> Iterator[Any]:
        """All batches of one epoch, wherever the loader stands, without moving it."""
        first = epoch * self.steps_per_epoch
        last = first + self.steps_per_epoch
        feeder = self._kitchen.feeder(first, last)
        try:
            for _ in range(first, last):
                yield feeder.take().batch
        finally:
            feeder.close()

    def example(self, rows: int = 1) -> Any:
        """The first samples as they lie (equal on all ranks), without moving the loader."""
        wanted = np.arange(min(rows, len(self._source)), dtype=np.int64)
        return self._kitchen.example(wanted)

    def rows_of(self, step: int) -> Rows:
        """Row numbers of this rank's part of global batch `step`, counted over all epochs."""
        return self._plan.picks(step, 1).rows

    def close(self) -> None:
        """End the workers and let go of the source."""
        self._kitchen.close()
        end: Callable[[], None] | None = getattr(self._source, "close", None)
        if end is not None:
            end()
