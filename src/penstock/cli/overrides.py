"""The command line of `ps.main(fit, Config)`: options of the run, and dotted overrides."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean
from penstock.cli.sweeps import axes, is_grid
from penstock.training import dictconfig
from penstock.training.overriding import applied, fields
from penstock.training.tuning.pruning import PRUNERS
from penstock.training.tuning.sampling import SAMPLERS

_SWEEP = ("sweep", "parallel", "trials", "minimize", "maximize", "sampler", "pruner")


@dataclass(frozen=True, slots=True)
class Given:
    """config   with the overrides applied
    options  those keyword arguments of `ps.train` said; with a space, of `ps.tune`
    space    what varies, where --sweep says so
    """

    config: Any
    options: dict[str, Any]
    space: dict[str, Any] | None = None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"the command line does not hold: {message}", self._fix(message))

    def _fix(self, message: str) -> str:
        """The option that was meant, where one that is not known was given."""
        known = [name for action in self._actions for name in action.option_strings]
        unknown = [word for word in message.split() if word.startswith("--")]
        near = (
            did_you_mean(unknown[0].partition("=")[0], known) if "unrecognized" in message else ""
        )
        return near or "See --help."


def parse(function: Callable[..., Any], config: Any, arguments: Sequence[str]) -> Given:
    """Options and `key=value` pairs in any order. Raises BadInput, which names the nearest key."""
    config = _instance(config)
    parser = _Parser(
        description=(function.__doc__ or "").strip() or None,
        epilog="config:\n" + "\n".join(f"  {k}={v!r}" for k, v in _leaves(config)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="change the config")
    parser.add_argument("--name", default=_default_name(function), help="of the run")
    parser.add_argument(
        "--workers",
        type=_workers,
        metavar="N|LOW-HIGH",
        default=None,
        help="ranks; 0: in this process; 1-8: a number that may change while it goes on",
    )
    parser.add_argument("--detach", action="store_true", default=None, help="let go of the run")
    parser.add_argument("--fresh", action="store_true", default=None, help="start over")
    parser.add_argument("--seed", type=int, default=None, help="of weights, order and noise")
    parser.add_argument(
        "--init-from", metavar="RUN@STEP|MODEL", default=None, help="weights to begin with"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default=None, help="of the ranks"
    )
    parser.add_argument(
        "--preload",
        type=lambda text: text.split(","),
        metavar="MODULE,…",
        default=None,
        help="what ranks import and takes long, such as transformers: once for all of them",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=lambda text: int(text) if text.isdigit() else text,
        metavar="STEPS|TIME",
        default=None,
        help="a number of steps, a time such as 30s, or auto",
    )
    parser.add_argument(
        "--on-change",
        choices=("continue", "refuse", "fork"),
        default=None,
        help="when code or config changed since an unfinished run",
    )
    _add_sweep(parser)
    said = vars(parser.parse_intermixed_args(list(arguments)))
    config = applied(config, said.pop("overrides"))
    options = {key: value for key, value in said.items() if value is not None}
    sweep = {name: options.pop(name) for name in _SWEEP if name in options}
    if "sweep" not in sweep:
        if sweep:
            raise BadInput(
                f"--{next(iter(sweep))} is for a sweep, and nothing varies",
                "Add --sweep lr=1e-4,1e-3, say.",
            )
        return Given(config, options)
    space = axes(config, sweep.pop("sweep"))
    return Given(config, {**_searched(space, sweep), **_without(options)}, space)


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    more = parser.add_argument_group("sweeps: one run for each of some values")
    more.add_argument(
        "--sweep",
        nargs="+",
        metavar="KEY=VALUES",
        default=None,
        help="lr=1e-4,1e-3 width=32,64: every combination; lr=1e-4:1e-2:log with --trials",
    )
    more.add_argument("--parallel", type=int, default=None, help="runs at once")
    more.add_argument("--trials", type=int, default=None, help="how many runs in all")
    which = more.add_mutually_exclusive_group()
    which.add_argument("--minimize", metavar="METRIC", default=None, help="what is logged")
    which.add_argument("--maximize", metavar="METRIC", default=None, help="what is logged")
    more.add_argument("--sampler", choices=SAMPLERS, default=None, help="default: grid, or tpe")
    more.add_argument("--pruner", choices=PRUNERS, default=None, help="stops runs early")


def _searched(space: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `ps.tune` that a sweep says."""
    found: dict[str, Any] = {
        key: said[key] for key in ("parallel", "trials", "pruner") if key in said
    }
    for direction in ("minimize", "maximize"):
        if direction in said:
            found |= {"metric": said[direction], "direction": direction}
    return {**found, "sampler": said.get("sampler", "grid" if is_grid(space) else "tpe")}


def _without(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a single run that a sweep has too. Raises BadInput for the others."""
    for name in ("detach", "init_from"):
        if name in options:
            raise BadInput(
                f"--{name.replace('_', '-')} does not go with --sweep",
                "Leave it out; a sweep goes on when the same line is run again.",
            )
    return options


def _workers(text: str) -> int | tuple[int, int]:
    numbers = text.split("-")
    if len(numbers) > 2 or not all(number.isdigit() for number in numbers):
        raise argparse.ArgumentTypeError(f"'{text}' is no number, and no range such as 1-8")
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else int(text)


def _instance(config: Any) -> Any:
    if not isinstance(config, type):
        return config
    try:
        return config()
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"{config.__name__}() cannot be made without arguments: {error}",
            "Give every field a default; the command line overrides them.",
        ) from None


def _leaves(config: Any, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in fields(config).items():
        nested = dataclasses.is_dataclass(value) or isinstance(value, dict)
        nested = nested or hasattr(value, "model_copy") or dictconfig.is_dict(value)
        if nested and value:
            found += _leaves(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found


def _default_name(function: Callable[..., Any]) -> str:
    """The script's own name; in a notebook the function's."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(file).stem if file else function.__name__
