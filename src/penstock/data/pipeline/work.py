"""The work of a batch: gather, map, collate. A function of the picks alone, wherever it is done."""

from __future__ import annotations

import inspect
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from penstock.base.errors import BadInput, PenstockError, UserCodeFailed
from penstock.data.columns import Values
from penstock.data.pipeline.collate import PADDED, collated, padded, relisted, samples_of
from penstock.data.pipeline.plan import Picks
from penstock.data.pipeline.randoms import Randoms, generator, stream_key

Sample = Mapping[str, Any]
Collate = Literal["pad"] | Callable[[list[dict[str, Any]]], Any]

_HERE = str(Path(__file__).parent.parent) + os.sep


@dataclass(frozen=True, slots=True)
class Steps:
    """What is done to samples after they were gathered.

    map        (sample) or (sample, rng) -> sample: a dictionary of arrays, numbers, text, …
    batch_map  (columns) or (columns, rngs) -> columns: of this rank's part of a batch
    collate    None: values of one shape are stacked, others stay lists; "pad": lists are filled
               up to the longest; a function of a list of samples: whatever it gives is the batch
    seed       keys the randomness
    key        the column that names a sample, for messages
    """

    map: Callable[..., Sample] | None = None
    batch_map: Callable[..., Mapping[str, Any]] | None = None
    collate: Collate | None = None
    seed: int = 0
    key: str = ""

    @property
    def plain(self) -> bool:
        """Whether nothing is done: a batch is what was gathered."""
        return self.map is None and self.batch_map is None and self.collate is None


class Work:
    """Steps over a source. Threads may `run` at the same time; no random state is touched, except
    by a source that has one of its own (see `torchdata`)."""

    def __init__(self, source: Any, steps: Steps) -> None:
        self._source = source
        self._steps = steps
        self._key = stream_key(source.identity, steps.seed)
        self._map_draws = steps.map is not None and takes_two(steps.map)
        self._batch_map_draws = steps.batch_map is not None and takes_two(steps.batch_map)
        self._seeded = getattr(source, "gather_seeded", None)
        self._assemble = getattr(source, "assemble", None)

    def run(self, picks: Picks) -> list[Any]:
        """The batches of these picks, in NumPy. Raises UserCodeFailed and what the source does."""
        columns = self._gathered(picks)
        if picks.padded is not None:
            columns[PADDED] = picks.padded
        cuts = picks.cuts
        if self._steps.plain and self._assemble is None:
            pieces = map(slice, cuts, cuts[1:])
            return [{name: each[piece] for name, each in columns.items()} for piece in pieces]
        return [self._batch(columns, picks, start, stop) for start, stop in pairwise(cuts)]

    def _gathered(self, picks: Picks) -> dict[str, Any]:
        if self._seeded is not None:
            return dict(self._seeded(picks.rows, picks.epochs, self._key))
        return dict(self._source.gather(picks.rows))

    def _batch(self, columns: dict[str, Values], picks: Picks, start: int, stop: int) -> Any:
        if callable(self._steps.collate):
            samples = samples_of(columns, start, stop)
            if self._steps.map is not None:
                samples = self._mapped(samples, picks, start)
            return self._collated(samples, picks, start)
        if start == stop and picks.like is not None:
            one = picks.of_like()
            batch = self._columns(self._gathered(one), one, 0, 1)
            batch = {name: values[:0] for name, values in batch.items()}
        else:
            batch = self._columns(columns, picks, start, stop)
        return batch if self._assemble is None else self._assemble(batch)

    def _columns(self, columns: dict[str, Values], picks: Picks, start: int, stop: int) -> Any:
        steps = self._steps
        if len(picks) == 1:
            batch: Any = columns
        else:
            batch = {name: values[start:stop] for name, values in columns.items()}
        if steps.map is not None:
            samples = self._mapped(samples_of(columns, start, stop), picks, start)
            batch = collated(samples) if samples else batch
            if steps.collate == "pad":
                batch = relisted(batch, columns)
        if steps.batch_map is not None:
            batch = self._batch_mapped(batch, picks, start, stop)
        if steps.collate == "pad":
            batch = padded(batch)
        if picks.padded is not None and PADDED not in batch:  # left out by a map
            batch = {**batch, PADDED: picks.padded[start:stop]}
        return batch

    def _mapped(self, samples: list[dict[str, Any]], picks: Picks, start: int) -> list[Any]:
        function = self._steps.map
        assert function is not None
        found = []
        for at, sample in enumerate(samples, start):
            row = int(picks.rows[at])
            key = sample.get(self._steps.key)
            try:
                if self._map_draws:
                    made = function(sample, generator(self._key, row, int(picks.epochs[at])))
                else:
                    made = function(sample)
            except Exception as error:
                raise failed(error, "map", row, key) from error
            if not isinstance(made, Mapping):
                raise BadInput(
                    f"the map gave {type(made).__name__} for row {row}, not a sample",
                    "Give a dictionary of values; to leave samples out, use filter=.",
                    row=row,
                )
            found.append(made)
        return found

    def _batch_mapped(self, batch: Any, picks: Picks, start: int, stop: int) -> Any:
        function = self._steps.batch_map
        assert function is not None
        try:
            if not self._batch_map_draws:
                return function(batch)
            rows, epochs = picks.rows[start:stop].tolist(), picks.epochs[start:stop].tolist()
            return function(batch, Randoms(self._key, rows, epochs))
        except Exception as error:
            raise failed(error, "batch_map", _first(picks, start, stop), None) from error

    def _collated(self, samples: list[dict[str, Any]], picks: Picks, start: int) -> Any:
        assert callable(self._steps.collate)
        try:
            return self._steps.collate(samples)
        except Exception as error:
            first = _first(picks, start, start + len(samples))
            raise failed(error, "collate", first, None) from error


def _first(picks: Picks, start: int, stop: int) -> int | None:
    return int(picks.rows[start]) if stop > start else None


def takes_two(function: Callable[..., Any]) -> bool:
    """Whether a function takes randomness beside its sample. Raises BadInput for another shape."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False  # a builtin: it takes one
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in places if p.default is p.empty]
    if len(needed) > 2 or not (places or any(p.kind == p.VAR_POSITIONAL for p in parameters)):
        name = getattr(function, "__name__", "the function")
        raise BadInput(
            f"{name} takes {len(needed)} arguments",
            "Write it as (sample) or, where it draws random numbers, (sample, rng).",
        )
    return len(needed) == 2 or any(p.name in ("rng", "rngs") for p in places[1:2])


def failed(error: Exception, what: str, row: int | None, key: Any) -> PenstockError:
    """An exception of the user's function as one of the family, with its own traceback."""
    if isinstance(error, PenstockError):
        return error
    kind = type(error).__name__
    key = key.item() if isinstance(key, np.generic) else key
    place = f", row {row}" if row is not None else ""
    place += f', key "{key}"' if key is not None else ""
    return UserCodeFailed(
        f"{kind}: {error} (in {what}{place})",
        "Mend the function and run it again; filter= leaves samples out.",
        row=row,
        key=key if isinstance(key, str | int | float) else None,
        where=what,
        signature=f"{kind}: {error}",
        traceback=own_frames(error),
    )


def own_frames(error: BaseException) -> str:
    """The traceback from the user's first frame on."""
    frames: Sequence[Any] = traceback.extract_tb(error.__traceback__)
    first = next((i for i, f in enumerate(frames) if not f.filename.startswith(_HERE)), 0)
    lines = traceback.format_list(list(frames[first:]))
    last = traceback.format_exception_only(type(error), error)
    return "Traceback (most recent call last):\n" + "".join(lines + last)
