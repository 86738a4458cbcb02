"""Where a loader's batches are made: here, in threads, or in workers."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from penstock.base.errors import BadInput
from penstock.data.order import Rows
from penstock.data.pipeline.hints import Hints
from penstock.data.pipeline.opening import Opening
from penstock.data.pipeline.options import Options
from penstock.data.pipeline.pages import keep_pages
from penstock.data.pipeline.plan import Picks, Plan
from penstock.data.pipeline.pool import Pool, PoolFeeder
from penstock.data.pipeline.tensors import DeviceFeeder, pinned, to_torch
from penstock.data.pipeline.threads import AHEAD_BYTES, Feeder, HereFeeder, ThreadFeeder
from penstock.data.pipeline.work import Steps, Work

THREADS, THREADS_THAT_MAP = 1, 2  # more only wait for each other, unless they decode


class Kitchen:
    """Makes feeders. Owns the workers, which start with the first feeder and end with `close`."""

    def __init__(self, source: Any, plan: Plan, opening: Opening, options: Options) -> None:
        self._source, self._plan, self._opening, self._options = source, plan, opening, options
        self._steps = Steps(
            map=options.get("map"),
            batch_map=options.get("batch_map"),
            collate=options.get("collate"),
            seed=options.get("seed", 0),
            key=options.get("key", ""),
        )
        self._work = Work(source, self._steps)
        self._workers = options.get("workers", 0)
        threads = options.get("threads", THREADS if self._steps.plain else THREADS_THAT_MAP)
        for name, number in (("workers", self._workers), ("threads", threads)):
            if not isinstance(number, int) or number < 0:
                raise BadInput(f"{name} is {number!r}", "Give a whole number from 0.")
        # a source with random states of its own must not share them with the step's thread
        self._threads = 0 if hasattr(source, "gather_seeded") else threads
        self._ahead_bytes = options.get("ahead_bytes", AHEAD_BYTES)
        self._device = _gpu(options.get("device"))
        self._telling = threading.Lock()
        self._pool: Pool | None = None

    def feeder(self, first: int, last: int | None) -> Feeder:
        """Batches from `first` up to `last` (None: without end)."""
        import torch  # noqa: F401 - here, not in a thread

        keep_pages()
        hints = Hints(self._plan, self._source)
        if self._workers:
            found: Feeder = self._of_workers(first, last, hints)
        elif not self._threads:
            found = HereFeeder(self._plan, lambda picks: self._make(picks, hints), first)
        else:
            found = ThreadFeeder(
                self._plan,
                lambda picks: self._make(picks, hints),
                first,
                last,
                threads=self._threads,
                ahead_bytes=self._ahead_bytes,
                singly=self._steps.map is not None or callable(self._steps.collate),
            )
        if self._device is None:
            return found
        return DeviceFeeder(found, self._device, pin=self._workers > 0)

    def _of_workers(self, first: int, last: int | None, hints: Hints) -> Feeder:
        if self._pool is None:
            self._pool = Pool(
                self._workers,
                self._opening,
                self._steps,
                fork=self._options.get("fork"),
            )
        singly = self._steps.map is not None or callable(self._steps.collate)
        return PoolFeeder(
            self._pool,
            self._plan,
            hints,
            first,
            last,
            ahead_bytes=self._ahead_bytes,
            singly=singly,
        )

    def _make(self, picks: Picks, hints: Hints) -> list[Any]:
        with self._telling:
            hints.before(picks)
        batches = [to_torch(batch) for batch in self._work.run(picks)]
        with self._telling:
            hints.after(picks)
        if self._device is not None and self._threads:
            batches = [pinned(batch) for batch in batches]
        return batches

    def example(self, rows: Rows) -> Any:
        """These rows as one batch, made here, in epoch 0."""
        padded = np.zeros(len(rows), bool) if self._options.get("pad_last") else None
        picks = Picks(0, rows, np.zeros(len(rows), np.int64), [0, len(rows)], padded)
        return to_torch(self._work.run(picks)[0])

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def _gpu(device: Any) -> Any:
    """The device where it is a GPU; None for the CPU."""
    if device is None:
        return None
    import torch

    found = torch.device(device)
    if found.type == "cpu":
        return None
    if found.type != "cuda":
        raise BadInput(f"batches cannot be given on {found}", "Give a CUDA device, or none.")
    return found
