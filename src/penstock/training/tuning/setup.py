"""What a search is asked for: checked against the config, and kept as plain data in its row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from penstock.base.errors import BadInput, PenstockError
from penstock.base.nearest import did_you_mean
from penstock.records import Run
from penstock.training import configuring
from penstock.training.overriding import put
from penstock.training.tuning import sampling
from penstock.training.tuning import space as vocabulary
from penstock.training.tuning.history import Direction, Taken
from penstock.training.tuning.pruning import Pruner, Rule
from penstock.training.tuning.sampling import Sampler
from penstock.training.tuning.space import Choice, Dimension, Integers, Space, Uniform

ANEW = ("space", "metric", "direction", "value", "seed")
"""What cannot change within a study: other values are no longer comparable."""


@dataclass(frozen=True, slots=True)
class Setup:
    """See `tune` for what each means; `trials` is how many there will be.

    metric  None: trials are run and not compared
    """

    space: Space
    metric: str | None
    direction: Direction
    value: Taken
    sampler: Sampler
    pruner: Pruner
    warmup: int | None
    seed: int
    trials: int

    @property
    def rule(self) -> Rule:
        return Rule(self.pruner, self.direction, self.warmup)

    def as_data(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {**fields, "space": vocabulary.as_data(self.space)}

    @classmethod
    def of(cls, study: Run) -> Setup:
        """As a study's row has it."""
        data = study.spec["search"]
        return cls(**{**data, "space": vocabulary.from_data(data["space"])})


def checked(
    space: Mapping[str, Any],
    config: Any,
    *,
    metric: str | None,
    direction: str | None,
    value: str,
    trials: int | None,
    sampler: str,
    pruner: str,
    warmup: int | None,
    seed: int,
) -> Setup:
    """Raises BadInput (the nearest word is offered), MissingExtra; nothing has changed then."""
    _one_of("value", value, get_args(Taken))
    _one_of("sampler", sampler, get_args(Sampler))
    _one_of("pruner", pruner, get_args(Pruner))
    if not isinstance(space, Mapping) or not space:
        raise BadInput("the space is empty", 'Write {"lr": ps.space.uniform(1e-5, 1e-2)}.')
    direction = _check_metric(metric, direction, sampler, pruner)
    if warmup is not None and warmup < 1:
        raise BadInput(f"warmup={warmup} is no number of steps", "Give 1 or more, or leave it out.")
    dimensions = {path: _dimension(path, each) for path, each in space.items()}
    for path, dimension in dimensions.items():
        _check_path(config, path, dimension)
    sampling.check(sampler, dimensions)  # type: ignore[arg-type]
    return Setup(
        space=dimensions,
        metric=metric,
        direction=direction,  # type: ignore[arg-type]
        value=value,  # type: ignore[arg-type]
        sampler=sampler,  # type: ignore[arg-type]
        pruner=pruner,  # type: ignore[arg-type]
        warmup=warmup,
        seed=seed,
        trials=_count(trials, sampler, dimensions),
    )


def _check_metric(metric: str | None, direction: str | None, sampler: str, pruner: str) -> str:
    """The direction. Without a metric nothing may need one."""
    if metric is None:
        needs = [sampler] if sampler in ("tpe", "cmaes") else []
        needs += [pruner] if pruner != "none" else []
        if needs or direction is not None:
            raise BadInput(
                f"no metric is named, and {' and '.join(needs) or 'the direction'} needs one",
                'Name what run.log tells: metric="val/accuracy", direction="maximize".',
            )
        return "minimize"
    if not metric or direction is None:
        raise BadInput(
            f'whether "{metric}" is good when it is large is not said',
            'Give metric="val/accuracy", direction="maximize", say.',
        )
    _one_of("direction", direction, get_args(Direction))
    return direction


def with_params(config: Any, params: Mapping[str, Any]) -> Any:
    """The config of one trial. Raises BadInput."""
    for path, value in params.items():
        config = put(config, path, value)
    return config


def _one_of(name: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise BadInput(f'there is no {name} "{given}"', did_you_mean(str(given), known))


def _count(trials: int | None, sampler: str, space: Space) -> int:
    size = sampling.grid_size(space) if sampler == "grid" else None
    if trials is None and size is None:
        raise BadInput("how many trials is not said", "Give trials=20, say.")
    if trials is not None and trials < 1:
        raise BadInput(f"trials={trials} tries nothing", "Give 1 or more.")
    found = [each for each in (trials, size) if each is not None]
    return min(found)


def _dimension(path: str, given: Any) -> Dimension:
    if isinstance(given, list | tuple | range):
        given = vocabulary.choice(given)
    if isinstance(given, Choice):
        return Choice(tuple(_plain(path, each) for each in given.options))
    if isinstance(given, Uniform | Integers):
        return given
    raise BadInput(
        f"what {path} may be is given as {given!r}",
        "Use ps.space.uniform(low, high), ps.space.integers(low, high), or a list of values.",
    )


def _check_path(config: Any, path: str, dimension: Dimension) -> None:
    """Values of each kind fit the field."""
    if config is None:
        raise BadInput(
            f'there is no config in which "{path}" could vary',
            "Pass the config of the training function: ps.tune(fit, space, Config(), …).",
        )
    values = dimension.options if isinstance(dimension, Choice) else map(dimension.at, (0, 0.37, 1))
    for value in values:
        put(config, path, value)


def _plain(path: str, value: Any) -> Any:
    """As the run's row keeps it. Raises BadInput."""
    try:
        return configuring.values({path: value})[path]
    except PenstockError as error:
        raise BadInput(f"a choice of {path} cannot be kept: {error.what}", error.fix) from None
