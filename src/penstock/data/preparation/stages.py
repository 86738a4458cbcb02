"""The steps of a unit in stages: a stage ends with a step whose output is kept, or with the last.

Where the rows of each input are its own, a stage runs input by input and remembers their shares, so
inputs that stayed are taken from before, stage for stage (`sharing.py`): from a later stage only
those that were from the ones before it, as what a step made of a row is known where it was given
that row, in the columns of before. From the first stage on where rows are of several inputs, all of
the unit run together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from penstock.base.errors import Damaged, NotFound
from penstock.blobs import Blobs
from penstock.data.columns import Column
from penstock.data.formats import Input
from penstock.data.preparation import chain, sharing, stability
from penstock.data.preparation.bad import Tally
from penstock.data.preparation.chain import Flow
from penstock.data.preparation.finishing import Work
from penstock.data.preparation.fitting import (
    Fitted,
    Misfit,
    Piece,
    alike,
    fit_tables,
    fitted,
    pieces_of,
    tell,
)
from penstock.data.preparation.kept import Kept, Share, put_bad, remember
from penstock.data.preparation.places import Places
from penstock.data.types import Types

Ended = TypeVar("Ended")


@dataclass
class Ran:
    """The rows of a unit's last step.

    kept     memories of the steps before
    shares   of the last stage, [] where they are nobody's; earlier: bad ones of stages before it
    """

    fit: Fitted
    tally: Tally
    unstable: list[str]
    kept: list[dict[str, Any]] = field(default_factory=list)
    shares: Sequence[Share] = ()
    earlier: int = 0

    def own_shares(self) -> list[Share]:
        """None where a record was bad only among those of other inputs."""
        own = self.earlier + sum(each.bad for each in self.shares) == len(self.tally.found)
        return list(self.shares) if own and self.fit.ballots is None else []


def run_stages(
    payload: Mapping[str, Any],
    blobs: Blobs,
    work: Work,
    inputs: Sequence[Input],
    places: Places,
    wanted: list[Column] | None,
) -> Ran:
    """All that `payload` (see `unit.unit`) does not have. Raises BadInput, UserCodeFailed."""
    stages = _Stages(payload, blobs, work, inputs, places, wanted)
    kept = None
    if payload.get("kept") is not None:
        remember(payload["kept"], blobs, stages.tally)
        kept = Kept.read(payload["kept"], blobs)
    return stages.run(kept)


class _Stages:
    """What is left of a unit, and what became of it so far."""

    def __init__(
        self,
        payload: Mapping[str, Any],
        blobs: Blobs,
        work: Work,
        inputs: Sequence[Input],
        places: Places,
        wanted: list[Column] | None,
    ) -> None:
        self._payload, self._blobs, self._work = payload, blobs, work
        self._inputs, self._places, self._wanted = inputs, places, wanted
        self._had: Sequence[Mapping[str, Any]] = payload["had"] or ()
        self.tally = Tally(work.bad)
        self._unstable: list[str] = []
        self._memories: list[dict[str, Any]] = []

    def run(self, kept: Kept | None) -> Ran:
        """From the first step that is not known. kept: what that one begins with."""
        stages = list(_segments(self._work, self._payload["from"]))
        for start, stop in stages:
            if not self._apart(stop, kept):
                return self._streamed(self._beginning(kept), start)
            if stop == len(self._work.steps):
                break
            earlier = len(self.tally.found)
            shared, pieces, kept = self._stage(start, stop, kept, self._to_keep)
            if kept is None:
                return self._streamed(_onward(pieces, self._places), stop)
            own = earlier + sum(each.bad for each in shared.shares) == len(self.tally.found)
            self._remember(kept, stop, shares=kept.shares, earlier=earlier, mixed=not own)
        earlier = len(self.tally.found)
        if self._wanted is not None:
            self._had = self._had[:-1]  # what was there is of other columns
        shared, fit = self._stage(*stages[-1], kept, self._to_fit)
        return Ran(fit, self.tally, self._unstable, self._memories, shared.shares, earlier)

    def _apart(self, stop: int, given: Kept | None) -> bool:
        """Whether the rows of each input are its own up to a step."""
        told = given is None or given.shares
        return bool(told) and sharing.possible(
            self._work.steps[:stop], self._work.source, self._inputs
        )

    def _beginning(self, kept: Kept | None) -> Iterator[Flow]:
        if kept is not None:
            return kept.flows(self._places)
        source = self._work.source
        read = source.read_all if self._work.bad == "fail" else source.read_on
        return chain.flows(read(self._inputs), self.tally)

    def _streamed(self, flows: Iterator[Flow], first: int) -> Ran:
        """All inputs through one step after the other."""
        work, tally = self._work, self.tally
        for start, stop in _segments(work, first):
            steps = work.steps[start:stop]
            if self._payload["sampled"] and steps:
                flows = stability.watched(steps, flows, self._unstable)
            flows = chain.run_all(steps, flows, tally)
            if stop < len(work.steps):
                misfits: list[Misfit] = []
                pieces = list(pieces_of(flows, {}, misfits, tally, self._places))
                tell(misfits, tally, self._places)
                kept = _as_kept(pieces)
                if kept is not None:
                    self._remember(kept, stop)
                flows = _onward(pieces, self._places) if kept is None else kept.flows(self._places)
        fit = fitted(flows, work.types, tally, self._places, self._wanted)
        return Ran(fit, tally, self._unstable, self._memories)

    def _stage(
        self,
        start: int,
        stop: int,
        given: Kept | None,
        end: Callable[[sharing.Shared, list[Piece], bool], Ended | None],
    ) -> Ended:
        """One stage. end: what becomes of its rows, told whether some are taken from before; None
        where these leave that open."""
        before = next((each for each in self._had if each["end"] == stop), None)
        stage = sharing.Stage(self._work.steps[start:stop], self._types(stop), given)

        def run(known: Sequence[sharing.Known | None]) -> Ended | None:
            shared = sharing.Shared(
                self._blobs, self._work, self._inputs, self.tally.copy(), self._places, stage
            )
            pieces = shared.pieces(known, self._payload["sampled"])
            found = None if pieces is None else end(shared, pieces, any(known))
            if found is not None:
                self.tally = shared.tally
                self._unstable += shared.unstable
            return found

        found = None
        if before is not None:
            with suppress(Damaged, NotFound):  # what is lost of before is made again
                found = run(sharing.known_of(before))
        if found is None:
            self._had = ()  # of later stages too: they may be given other rows than before
            found = run([None] * len(self._inputs))
        assert found is not None  # where all ran there is nothing to doubt
        return found

    def _to_keep(
        self, shared: sharing.Shared, pieces: list[Piece], taken: bool
    ) -> tuple[sharing.Shared, list[Piece], Kept | None] | None:
        tell(shared.misfits, shared.tally, self._places)
        kept = _as_kept(pieces, shared.shares)
        return None if kept is None and taken else (shared, pieces, kept)

    def _to_fit(
        self, shared: sharing.Shared, pieces: list[Piece], _taken: bool
    ) -> tuple[sharing.Shared, Fitted]:
        tally, misfits = shared.tally, shared.misfits
        return shared, fit_tables(pieces, misfits, tally, self._places, self._wanted)

    def _types(self, stop: int) -> Types:
        return self._work.types if stop == len(self._work.steps) else {}

    def _remember(self, kept: Kept, stop: int, **more: Any) -> None:
        """For later calls. mixed: whether a record was bad only among those of other inputs."""
        facts = put_bad(self._blobs, self.tally)
        told = {"blob": kept.put(self._blobs), "records": self.tally.records, "facts": facts}
        key = self._payload["keys"][stop - 1]
        self._memories.append({"key": key, "value": {**told, **more}})


def _as_kept(pieces: Sequence[Piece], shares: Sequence[Share] = ()) -> Kept | None:
    """What later calls go on with, and this one as they will. None where rows do not have one
    schema: whatever the later steps make of them, all rows decide at the end which fit."""
    whole = alike(pieces)
    if whole is not None:
        return Kept(*whole, shares)
    return None if pieces else Kept(None, np.zeros(0, np.int32), shares)


def _onward(pieces: Sequence[Piece], places: Places) -> Iterator[Flow]:
    """Rows that are not kept, for the next step."""
    return (Flow(records, places, table=table) for table, records in pieces)


def _segments(work: Work, first: int) -> Iterator[tuple[int, int]]:
    """Runs of steps between which nothing is kept: (first, end). The last one ends with the last
    step, whose output is the unit's."""
    start = first
    for number in range(first, len(work.steps)):
        if work.keep[number]:
            yield start, number + 1
            start = number + 1
    yield start, len(work.steps)
