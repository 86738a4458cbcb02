"""Mixtures: several sources by weights, never more than one sample away from them.

Which source gives sample g of the mixture is the chairman assignment problem: at every prefix the
number x_i of samples from source i differs from what its weights promise, the sum of w_i so far,
by less than one (by at most 1 - 1 / (2 N - 2) for N sources), whatever the weights and however
they vary from step to step. The algorithm, in whole numbers only:

    of the sources that are behind their weights by at least 1 / (2 N - 2), take the one whose
    deadline is first: the sample at which it would be behind by more than 1 - 1 / (2 N - 2)

Where a mixture stands is how many samples each source gave. Each source has an order of its own
and begins its next epoch when it is used up.

Source: Tijdeman 1980, The Chairman Assignment Problem, Discrete Mathematics 32, 323-330.

Letters: N sources, B global batch, g a sample of the mixture from 0, n_i samples of source i.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from penstock.base.errors import BadInput, NotFound
from penstock.base.nearest import did_you_mean

Weight = int | float | Fraction
Numbers = npt.NDArray[np.int64]

_MOST_PERIOD = 1 << 16  # samples after which equal weights repeat, up to which they are kept


@dataclass(frozen=True)
class Mix:
    """Sources by weights.

    weights   name (in `run.data`: a dataset's reference) -> weight, in any unit; a float counts
              as the decimal number that it is written as (0.1 is a tenth)
    until     "first": ends before the first source would begin one pass more than `epochs`;
              "all": ends, with a full batch, when every source gave all its samples `epochs`
              times; None: never ends
    schedule  step -> weights that hold from this global batch on; a source left out has none

    >>> Mix({"code": 3, "prose": 1}, schedule={1000: {"code": 1, "prose": 1}}).names
    ('code', 'prose')
    """

    weights: Mapping[str, Weight]
    until: Literal["first", "all"] | None = "first"
    schedule: Mapping[int, Mapping[str, Weight]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.until not in ("first", "all", None):
            raise BadInput(f"until is {self.until!r}", 'It is "first", "all" or None.')
        if not self.weights:
            raise BadInput("a mixture of nothing", "Name at least one source.")
        for step, weights in [(0, self.weights), *self.schedule.items()]:
            if not isinstance(step, int) or step < (weights is not self.weights):
                raise BadInput(f"step {step!r} of a schedule is none", "Count steps from 1.")
            for name, weight in weights.items():
                self._check(name, weight)
            if not any(weights.values()):
                raise BadInput(
                    f"from step {step} on every weight is 0", "Give one source a weight."
                )

    def _check(self, name: str, weight: Weight) -> None:
        if name not in self.weights:
            raise NotFound(
                f'the schedule names "{name}", which is not mixed', did_you_mean(name, self.weights)
            )
        if not isinstance(weight, int | float | Fraction) or not 0 <= weight < math.inf:
            raise BadInput(
                f'the weight of "{name}" is {weight!r}', "Give a number from 0.", source=name
            )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.weights)

    def shares(self) -> list[tuple[int, tuple[Fraction, ...]]]:
        """(step from which they hold, share of each source; together 1), by step."""
        found = []
        for step, weights in sorted([(0, self.weights), *self.schedule.items()]):
            parts = [Fraction(str(weights.get(name, 0))) for name in self.names]
            found.append((step, tuple(part / sum(parts) for part in parts)))
        return found


class Assignment:
    """Which source gives which sample.

    mix    see there
    batch  B, in which the schedule's steps count

    Pure: the same counts give the same samples. Not changed by being asked.
    """

    def __init__(self, mix: Mix, batch: int) -> None:
        shares = mix.shares()
        self.count = len(mix.names)
        self._whole = math.lcm(*(part.denominator for _, parts in shares for part in parts))
        self._starts = [step * batch for step, _ in shares]
        self._weights = [tuple(int(part * self._whole) for part in parts) for _, parts in shares]
        self._least = 1 if self.count == 1 else 2 * self.count - 2
        self._pattern: Numbers | None = None
        if len(shares) == 1 and self._whole <= _MOST_PERIOD:
            self._pattern = self._assigned(0, (0,) * self.count, self._whole)

    # where it stands

    def promised(self, g: int) -> list[Fraction]:
        """What the weights promise each source of the first g samples."""
        return [Fraction(total, self._whole) for total in self._totals(g)]

    def _totals(self, g: int) -> list[int]:
        totals = [0] * self.count
        for start, stop, weights in self._segments():
            length = (g if stop is None else min(g, stop)) - start
            if length > 0:
                totals = [t + length * w for t, w in zip(totals, weights, strict=True)]
        return totals

    def _segments(self) -> list[tuple[int, int | None, tuple[int, ...]]]:
        stops: list[int | None] = [*self._starts[1:], None]
        return list(zip(self._starts, stops, self._weights, strict=True))

    def counts_at(self, g: int) -> tuple[int, ...] | None:
        """Samples of each source among the first g, where that is known without counting."""
        if g == 0:
            return (0,) * self.count
        if self._pattern is None:
            return None
        periods, rest = divmod(g, self._whole)
        more = np.bincount(self._pattern[:rest], minlength=self.count)
        weights = self._weights[0]
        return tuple(periods * w + int(m) for w, m in zip(weights, more, strict=True))

    # samples

    def sources(self, g: int, counts: Sequence[int], length: int) -> Numbers:
        """The source of samples g..g+length-1: int64 [length].

        counts  samples of each source among the first g; their sum is g
        """
        if self._pattern is not None:
            return np.asarray(self._pattern[np.arange(g, g + length) % self._whole])
        return self._assigned(g, counts, length)

    def _assigned(self, g: int, counts: Sequence[int], length: int) -> Numbers:
        """Tijdeman's algorithm. ahead[i] = whole * (promised - given), a whole number."""
        if self.count == 1:
            return np.zeros(length, np.int64)
        found = np.empty(length, np.int64)
        totals = self._totals(g)
        behind = [t - self._whole * x for t, x in zip(totals, counts, strict=True)]
        at = 0
        for start, stop, weights in self._segments():
            while at < length and start <= g + at and (stop is None or g + at < stop):
                chosen = self._chosen(behind, weights, g + at)
                behind[chosen] -= self._whole
                found[at] = chosen
                at += 1
        return found

    def _chosen(self, behind: list[int], weights: tuple[int, ...], g: int) -> int:
        """The source of sample g. Adds its weights to `behind`."""
        least, whole = self._least, self._whole
        best, first = -1, math.inf
        for i, weight in enumerate(weights):
            behind[i] += weight
            if behind[i] * least >= whole:
                deadline = self._deadline(i, behind[i], g)
                if best < 0 or deadline < first:
                    best, first = i, deadline
        return best

    def _deadline(self, i: int, behind: int, g: int) -> float:
        """Samples from g until source i would be behind by more than 1 - 1 / (2 N - 2)."""
        short = self._whole * (self._least - 1) - behind * self._least + 1
        if short <= 0:
            return 0
        for start, stop, weights in self._segments():
            weight = weights[i] * self._least
            if stop is not None and stop <= g + 1:
                continue
            here = max(start, g + 1)
            if weight and (stop is None or short <= (stop - here) * weight):
                return here - (g + 1) + -(-short // weight)
            short -= (stop - here) * weight if stop is not None else 0
        return math.inf

    # the end

    def end(self, until: str | None, samples: Sequence[int]) -> int | None:
        """How many samples the mixture has; None where it has no end.

        samples  that each source may give ("first") or must have given ("all"): passes times n_i

        "first" is the last g up to which the weights promise no source more than it has; "all"
        the first g at which they promise every source all it has. So the last sample of the
        source that decides may be left out, or come one more time, by rounding.
        Raises BadInput for a source that never gives all its samples.
        """
        if until is None:
            return None
        ends = [self._reaches(i, total) for i, total in enumerate(samples)]
        if until == "first":
            return min(math.floor(end) for end in ends if end is not None)
        if None in ends:
            raise BadInput(
                "a source without weight at the end of the schedule never gives all its samples",
                'Give it a weight, or take until="first".',
            )
        return max(math.ceil(end) for end in ends if end is not None)

    def _reaches(self, i: int, total: int) -> Fraction | None:
        """The g, a fraction, at which the weights promise source i `total` samples."""
        left = total * self._whole
        for start, stop, weights in self._segments():
            if weights[i] and (stop is None or left <= (stop - start) * weights[i]):
                return start + Fraction(left, weights[i])
            left -= (stop - start) * weights[i] if stop is not None else 0
        return None
