"""What a study tries next: a function of its seed, the trial's number and the trials before it.

Nothing else: no sampler lives from one trial to the next. So a study that goes on after a crash
proposes what it would have proposed, and with trials one after the other the whole study is a
function of its seed.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal

from penstock.base.errors import BadInput, MissingExtra
from penstock.training.tuning.history import Direction, Trial
from penstock.training.tuning.space import Choice, Integers, Space, Uniform

Sampler = Literal["tpe", "random", "grid", "qmc", "cmaes"]
SAMPLERS: tuple[Sampler, ...] = ("tpe", "random", "grid", "qmc", "cmaes")


def check(sampler: Sampler, space: Space) -> None:
    """Whether this can be done here. Raises MissingExtra, BadInput."""
    if sampler == "tpe":
        _optuna()
    if sampler == "cmaes":
        _cmaes()
        if all(isinstance(dimension, Choice) for dimension in space.values()):
            raise BadInput(
                "CMA-ES moves numbers, and the space has choices alone",
                'Use sampler="tpe", or intervals and whole numbers.',
            )
    if sampler == "grid":
        grid_size(space)


def propose(
    sampler: Sampler,
    space: Space,
    seed: int,
    number: int,
    before: Sequence[Trial],
    direction: Direction,
) -> dict[str, Any]:
    """Values for a trial, by path.

    number  of the trial, from 0
    before  the trials with lower numbers, as far as they are known
    """
    match sampler:
        case "random":
            shares = _random(seed, number).random(len(space))
        case "qmc":
            shares = _sobol(seed, number, len(space))
        case "grid":
            return grid_point(space, number)
        case "cmaes":
            return _by_cmaes(space, seed, number, before, direction)
        case _:
            return _by_tpe(space, seed, number, before, direction)
    return {path: d.at(float(u)) for (path, d), u in zip(space.items(), shares, strict=True)}


def grid_size(space: Space) -> int:
    """How many points a grid has. Raises BadInput for what cannot be counted."""
    endless = [path for path, dimension in space.items() if dimension.every() is None]
    if endless:
        raise BadInput(
            f"a grid has no points along {', '.join(endless)}: an interval has no end of values",
            "Write a choice of some values, integers with a step, or another sampler.",
        )
    return math.prod(len(dimension.every() or ()) for dimension in space.values())


def grid_point(space: Space, number: int) -> dict[str, Any]:
    """The last path moves fastest.

    >>> grid_point({"a": Choice((1, 2)), "b": Choice((3, 4))}, 2)
    {'a': 2, 'b': 3}
    """
    points = itertools.product(*(dimension.every() or () for dimension in space.values()))
    return dict(zip(space, next(itertools.islice(points, number, None)), strict=True))


def _seed(seed: int, number: int) -> int:
    import numpy as np

    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _random(seed: int, number: int) -> Any:
    import numpy as np

    return np.random.default_rng([seed, number])


def _sobol(seed: int, number: int, dimensions: int) -> list[float]:
    """The scrambled Sobol sequence's point of this number."""
    from torch import quasirandom

    engine: Any = quasirandom.SobolEngine(dimensions, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    return [float(each) for each in engine.fast_forward(number).draw(1)[0]]


def _by_tpe(
    space: Space, seed: int, number: int, before: Sequence[Trial], direction: Direction
) -> dict[str, Any]:
    """By Optuna: the trials are told to a fresh study, which is then asked once."""
    optuna = _optuna()
    distributions = {path: _distribution(optuna, d) for path, d in space.items()}
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that constant_liar is experimental
            sampler = optuna.samplers.TPESampler(seed=_seed(seed, number), constant_liar=True)
            study = optuna.create_study(direction=direction, sampler=sampler)
            known = [each for each in map(_told(optuna, space, distributions), before) if each]
            study.add_trials(known)
            asked = study.ask(distributions).params
    finally:
        optuna.logging.set_verbosity(level)
    return {
        path: d.options[asked[path]] if isinstance(d, Choice) else asked[path]
        for path, d in space.items()
    }


def _distribution(optuna: Any, dimension: Uniform | Integers | Choice) -> Any:
    match dimension:
        case Uniform(low, high, log):
            return optuna.distributions.FloatDistribution(low, high, log=log)
        case Integers(low, high, step, log):
            return optuna.distributions.IntDistribution(low, high, log=log, step=step)
        case Choice(options):  # by place: options may be lists and dicts
            return optuna.distributions.CategoricalDistribution(list(range(len(options))))


def _told(optuna: Any, space: Space, distributions: dict[str, Any]) -> Any:
    """A function that makes Optuna's record of a trial; None of one that tells nothing."""
    states = optuna.trial.TrialState
    names = {
        "complete": states.COMPLETE,
        "pruned": states.PRUNED,
        "waiting": states.RUNNING,
        "running": states.RUNNING,
    }

    def told(trial: Trial) -> Any:
        state = names.get(trial.state)
        if state is None:
            return None
        params = {
            path: d.options.index(trial.params[path])
            if isinstance(d, Choice)
            else trial.params[path]
            for path, d in space.items()
        }
        curve = {step: value for step, value in trial.curve if not math.isnan(value)}
        if state == states.PRUNED and not curve:
            return None
        return optuna.trial.create_trial(
            state=state,
            params=params,
            distributions=distributions,
            value=trial.value if state == states.COMPLETE else None,
            intermediate_values=curve,
        )

    return told


def _by_cmaes(
    space: Space, seed: int, number: int, before: Sequence[Trial], direction: Direction
) -> dict[str, Any]:
    """By the covariance matrix adapted to all whole populations so far; choices at random."""
    import numpy as np

    cmaes = _cmaes()
    moving = [path for path, dimension in space.items() if not isinstance(dimension, Choice)]
    strategy = cmaes.CMA(
        mean=np.full(len(moving), 0.5),
        sigma=1 / 6,
        bounds=np.tile([0.0, 1.0], (len(moving), 1)),
        seed=_seed(seed, number),
    )
    sign = -1.0 if direction == "maximize" else 1.0
    told = [
        (np.array([space[path].share(each.params[path]) for path in moving]), sign * each.value)
        for each in before
        if each.state == "complete" and each.value is not None
    ]
    size = strategy.population_size
    for at in range(0, len(told) - size + 1, size):
        strategy.tell(told[at : at + size])
    shares = dict(zip(moving, strategy.ask(), strict=True))
    chance = _random(seed, number)
    return {
        path: dimension.at(float(shares[path] if path in shares else chance.random()))
        for path, dimension in space.items()
    }


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise _missing("tpe", "optuna") from None
    return optuna


def _cmaes() -> Any:
    try:
        import cmaes
    except ImportError:
        raise _missing("cmaes", "cmaes") from None
    return cmaes


def _missing(sampler: str, package: str) -> MissingExtra:
    return MissingExtra(
        f'sampler="{sampler}" needs the package {package}, which is not installed',
        'pip install \'penstock[tune]\', or sampler="random", "qmc" or "grid", which need none.',
        extra="tune",
    )
