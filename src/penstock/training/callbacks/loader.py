"""A DataLoader whose position can be kept: the next batch after a restart is the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch

from penstock.base.errors import Damaged
from penstock.training import randomness


class Resumable:
    """Around a torch DataLoader; all else of it stays as it is.

    An epoch's order is drawn when it begins, from random states. Those are kept with the number of
    batches that were given: a restart begins the epoch from them again, drops so many batches, and
    puts the random states of the moment back. So the batches that were given are loaded once more.

    before_next  called before each batch is fetched: between two steps
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.before_next: Callable[[], None] | None = None
        self._given = 0
        self._begin: dict[str, Any] | None = None
        self._to_load: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Any]:
        batches = self._again() if self._to_load is not None else self._anew()
        while True:
            if self.before_next is not None:
                self.before_next()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Between two batches."""
        if self._to_load is not None:
            return self._to_load
        return {"begin": self._begin, "given": self._given, "now": randomness.capture()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """For the next epoch that begins."""
        if state["begin"] is not None:
            self._to_load = state

    def _anew(self) -> Iterator[Any]:
        self._given, self._begin = 0, self._states()
        return iter(self.loader)

    def _again(self) -> Iterator[Any]:
        """Raises Damaged where the epoch has fewer batches than were given."""
        state, self._to_load = self._to_load, None
        assert state is not None
        self._begin, self._given = state["begin"], state["given"]
        randomness.put_back(state["begin"]["random"])
        kept = state["begin"]["generators"]
        for generator, each in zip(self._generators(), kept, strict=True):
            generator.set_state(each)
        batches: Iterator[Any] = iter(self.loader)
        dropped = sum(1 for _ in islice(batches, self._given))
        if dropped < self._given:
            raise Damaged(
                f"an epoch had {self._given} batches or more, and has {dropped} now",
                "The dataset or its loader changed: begin a run under another name.",
            )
        randomness.put_back(state["now"])
        return batches

    def _states(self) -> dict[str, Any]:
        generators = [each.get_state() for each in self._generators()]
        return {"random": randomness.capture(), "generators": generators}

    def _generators(self) -> list[torch.Generator]:
        """Those that the loader and its samplers draw from, each once."""
        found: list[torch.Generator] = []
        sampler = getattr(self.loader, "sampler", None)
        inner = getattr(getattr(self.loader, "batch_sampler", None), "sampler", None)
        for owner in (self.loader, sampler, inner):
            each = getattr(owner, "generator", None)
            if each is not None and not any(each is known for known in found):
                found.append(each)
        return found
