"""The verbs of the facade: guard, call the room, and say in one line what was reused and why.

They share one open home per process and settings; it is opened again after a fork and when the
settings have changed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from penstock.base.errors import BadInput
from penstock.base.settings import load_settings
from penstock.home import explaining
from penstock.home.guard import need_torch, only_in_one_process, only_in_scripts
from penstock.home.local import LocalHome
from penstock.home.named_options import named_options

if TYPE_CHECKING:
    from penstock.data import Dataset, Prepared
    from penstock.evaluation import Report, Suite
    from penstock.records import Alias, Deployment
    from penstock.registry import LoadedModel
    from penstock.training import Trained
    from penstock.training.attached import AttachedRun
    from penstock.training.tuning.tune import Tuned

Device = Literal["auto", "cpu", "cuda"]
OnChange = Literal["continue", "refuse", "fork"]

_open: dict[tuple[int, str], LocalHome] = {}
_quiet = False
_watching: Callable[[], AbstractContextManager[Callable[..., None] | None]] = nullcontext


def current() -> LocalHome:
    """This process's home for the settings as they are now."""
    settings = load_settings()
    key = (os.getpid(), settings.model_dump_json())
    if key not in _open:
        _open.clear()  # a parent's or an older one; closing a parent's is not ours to do
        _open[key] = LocalHome(settings)
    return _open[key]


@contextmanager
def quietly(quiet: bool = True) -> Iterator[None]:
    """Inside, verbs do not say what they reuse and run: for callers that tell it in their way."""
    global _quiet
    before, _quiet = _quiet, quiet
    try:
        yield
    finally:
        _quiet = before


@contextmanager
def watched(
    watching: Callable[[], AbstractContextManager[Callable[..., None] | None]],
) -> Iterator[None]:
    """Inside, a training that gives no `on_progress` gets the one that `watching()` gives."""
    global _watching
    before, _watching = _watching, watching
    try:
        yield
    finally:
        _watching = before


def say(line: str) -> None:
    """One line for people, on stderr, so that a script's own output stays its own."""
    if _quiet:
        return
    sys.stderr.write(f"penstock: {line}\n")
    sys.stderr.flush()


@contextmanager
def _in_turn() -> Iterator[bool]:
    """Under a launcher: rank 0 first; the others find it done, and do not say it again."""
    from penstock.training.launched.turns import in_turn

    with in_turn() as first, quietly(_quiet or not first):
        yield first


def connect(home: str | Path | None = None, **settings: Any) -> LocalHome:
    """Open a home to look at and to steer: runs, data, models, evaluations, deployments.

    home  its folder; default: what `penstock.toml` and PENSTOCK_HOME say
    """
    folder = None if home is None else Path(home).expanduser().absolute()
    return LocalHome(load_settings(home=folder, **settings))


@named_options
def prepare(
    name: str,
    sources: Any,
    *,
    map: Callable[..., Any] | None = None,
    filter: Callable[..., Any] | None = None,
    flat_map: Callable[..., Any] | None = None,
    batch: Callable[..., Any] | None = None,
    steps: Sequence[Any] | None = None,
    key: str | Callable[..., Any] | None = None,
    splits: Any = None,
    by: str | None = None,
    types: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    bad: str = "fail",
    bad_share: float = 0.01,
    dedupe: bool | str | Sequence[str] | None = None,
    sort: str | Sequence[str] | None = None,
    shuffle: bool | int | None = None,
    join: Any = None,
    expect: Any = None,
    workers: int | None = None,
    unit_bytes: int | None = None,
    fresh: bool = False,
    on_progress: Callable[..., None] | None = None,
) -> Prepared:
    """Make a dataset version, or find the one that the same inputs, code and parameters made.

    sources   a function that gives rows (dicts), a dict of equally long arrays, or a table; or raw
              files (path, glob, URL, a list); or a dataset reference such as raw@2:all
    map, filter, flat_map, batch
              what is done with each row, or with columns of many, in this order; or steps=[…]
    key       column (or function of a row) that names a sample; default: a hash of its content
    splits    name -> share, e.g. {"train": 0.7, "validation": 0.1, "test": 0.2}, by hash of the
              key, or of the column `by`, whose rows stay together; or a column; or ByTime(…)
    types     what columns mean, e.g. {"image": Image()}
    params    for the functions that have arguments of these names
    bad       records that cannot be read or prepared: "fail", "skip" up to `bad_share` of all, or
              "quarantine" into the dataset NAME-quarantine
    dedupe, sort, shuffle, join
              over all rows: columns; a seed; Join(…)
    expect    expectations, or their file: checked before the version is made
    workers   processes; 0: in this one
    unit_bytes  up to which small files share a unit of work; 0: none do
    returns   what was prepared: `.reference`, `.version`, `.reused`, `.why`, `.notes`

    Raises BadInput, UserCodeFailed, CannotTravel, Refused; then nothing is published, and what was
    done is not done again.
    """
    only_in_scripts("prepare")
    options: dict[str, Any] = {
        "map": map, "filter": filter, "flat_map": flat_map, "batch": batch, "steps": steps,
        "key": key, "splits": splits, "by": by, "types": types, "params": params, "bad": bad,
        "bad_share": bad_share, "dedupe": dedupe, "sort": sort, "shuffle": shuffle, "join": join,
        "expect": expect, "workers": workers, "unit_bytes": unit_bytes, "fresh": fresh,
        "on_progress": on_progress,
    }  # fmt: skip
    if explaining.wanted():
        return explaining.prepared(current().stores, name, sources, options)
    from penstock import data

    with _in_turn() as first:
        found = data.prepare(
            current().stores, name, sources, **{**options, "fresh": fresh and first}
        )
        for line in (found.why, *found.notes):
            say(line)
    return found


@named_options
def train(
    function: Callable[..., None],
    config: Any = None,
    *,
    name: str | None = None,
    workers: int | tuple[int, int] = 1,
    detach: bool = False,
    fresh: bool = False,
    on_change: OnChange = "continue",
    checkpoint_every: int | str = "auto",
    seed: int = 0,
    threads: int | None = None,
    init_from: str | None = None,
    device: Device = "auto",
    preload: Sequence[str] = (),
    on_progress: Callable[..., None] | None = None,
) -> Trained:
    """Train under a name; survives the death of any process, and of the machine.

    function          fit(run, config), or fit(run), at the top level of a file
    config            dataclass, pydantic model, dict, or DictConfig of OmegaConf
    name              of the run; default: the function's name
    workers           ranks; 0: in this process; (low, high): a number that may change meanwhile
    detach            return at once; the run goes on without the script
    fresh             a new run, whatever there is under this name
    on_change         an unfinished run whose code or config changed: "continue" says and records
                      the difference, "refuse" raises Refused, "fork" starts a new run
    checkpoint_every  steps (a number), seconds (text such as "30s"), or "auto"
    seed              of initial weights, order of the data, and random numbers
    threads           of each rank; default: the cores, shared out
    init_from         a new run's tracked models begin with these weights: RUN[@STEP or @best], or a
                      model NAME[@VERSION-OR-ALIAS]; optimiser, step and cursor begin anew
    device            "cuda", "cpu", or "auto": GPUs where each rank can have one; they are claimed
    preload           modules that ranks import and that take long, such as ["transformers"]: once,
                      before ranks are forked; what could not be forked is left out, and said
    on_progress       called with `.step`, `.steps`, `.values` (newest scalars) while ranks go on
    returns           `.run`, `.model` (reference of what it published), `.reused`, `.why`

    Raises UserCodeFailed, RunFailed, RunStopped, LeaseHeld, Refused, CannotTravel, BadInput,
    MissingExtra; NotFound and Damaged where `init_from` names what is not there or not whole.
    """
    only_in_scripts("train")
    explaining.ends_at("train")
    _needs_torch()
    from penstock import training

    with _watching() if on_progress is None else nullcontext(on_progress) as watch:
        return training.train(
            current().stores, function, config, name=name, workers=workers, detach=detach,
            fresh=fresh, on_change=on_change, checkpoint_every=checkpoint_every, seed=seed,
            threads=threads, init_from=init_from, device=device, preload=preload,
            say=say, on_progress=watch,
        )  # fmt: skip


@named_options
def tune(
    function: Callable[..., None],
    space: Mapping[str, Any],
    config: Any = None,
    *,
    metric: str | None = None,
    direction: Literal["minimize", "maximize"] | None = None,
    trials: int | None = None,
    name: str | None = None,
    value: Literal["last", "best"] = "last",
    sampler: Literal["tpe", "random", "grid", "qmc", "cmaes"] = "tpe",
    pruner: Literal["none", "median", "halving", "hyperband"] = "none",
    warmup: int | None = None,
    parallel: int = 1,
    workers: int = 1,
    threads: int | None = None,
    timeout: float | str | None = None,
    max_failures: int | None = None,
    preload: Sequence[str] = (),
    seed: int = 0,
    checkpoint_every: int | str = "auto",
    fresh: bool = False,
    on_change: OnChange = "continue",
    on_progress: Callable[..., None] | None = None,
) -> Tuned:
    """Search over a config's values. Each trial is an ordinary run, NAME/0, NAME/1, …

    function          as for `train`; it must `run.log` the metric
    space             path in the config -> what it may be: `ps.space.uniform(1e-5, 1, log=True)`,
                      `ps.space.integers(16, 256, step=16)`, `ps.space.choice(["a", "b"])`, a list
    config            as for `train`: all that does not vary
    metric            name of a scalar that the function logs; None: trials are not compared, which
                      is for "grid", "random" and "qmc"
    direction         "minimize" or "maximize" the metric
    trials            how many in all; a grid has its own end
    name              of the study; default: the function's name
    value             what of the metric counts: the "last" value that was logged, or the "best"
    sampler           "tpe", "cmaes" (both by the extra `tune`), "random", "qmc" (Sobol), "grid"
    pruner            stops trials early by what they log: "median", "halving", "hyperband"
    warmup            steps in which none is stopped; with halving also the first rung
    parallel          trials at once, each with its own ranks
    workers, threads  ranks of each trial, and threads of each rank
    timeout           seconds, or text such as "2h": no trial begins after it in this call
    max_failures      trials that may fail; None: the study fails only when all did
    preload           as for `train`
    seed              of what is tried, and of each trial's training
    checkpoint_every  as for `train`; a killed trial goes on from its last checkpoint
    fresh, on_change  as for `train`; another space, metric, direction or seed is a new study
    on_progress       called with `.step` (trials done), `.steps`, `.values` (the best so far)
    returns           `.best_params`, `.best_value`, `.best_run`, `.model`, `.trials`, `.reused`

    The same call again goes on with what is missing. Raises BadInput, MissingExtra, RunFailed,
    RunStopped, LeaseHeld, Refused, CannotTravel.
    """
    only_in_scripts("tune")
    only_in_one_process("tune")
    explaining.ends_at("tune")
    _needs_torch()
    from penstock.training.tuning.tune import tune

    with _watching() if on_progress is None else nullcontext(on_progress) as watch:
        return tune(
            current().stores, function, space, config,
            metric=metric, direction=direction, trials=trials, name=name, value=value,
            sampler=sampler, pruner=pruner, warmup=warmup, parallel=parallel, workers=workers,
            threads=threads, timeout=timeout, max_failures=max_failures, preload=preload, seed=seed,
            checkpoint_every=checkpoint_every, fresh=fresh, on_change=on_change, say=say,
            on_progress=watch,
        )  # fmt: skip


def _needs_torch() -> None:
    need_torch()


def attach(
    name: str,
    config: Any = None,
    *,
    fresh: bool = False,
    on_change: OnChange = "continue",
    checkpoint_every: int | str = "auto",
    seed: int = 0,
    init_from: str | None = None,
) -> AttachedRun:
    """Give a loop that stands in this script or notebook the `run` that training functions get.

    config            dataclass, pydantic model or dict; a change of it, or of the script, counts
    fresh, on_change, checkpoint_every, init_from
                      as `ps.train` has them
    seed              of Python's, NumPy's and torch's random numbers: build the model afterwards
    returns           the run: `with ps.attach("base") as run:`, or end it by `run.end()`;
                      `run.finished` says that it had finished before, and then gives no steps

    Under torchrun, srun, and in a loop that went through `ps.in_ray_train`, all ranks attach, and
    `run.distribute` shares the gradients.
    Raises LeaseHeld, Refused, CannotTravel, BadInput, MissingExtra, NotFound, Damaged; `run.steps`
    raises RunStopped when the run is to stop, after it has saved.
    """
    only_in_scripts("attach")
    explaining.ends_at("attach")
    need_torch()
    from penstock.training import attach as begin

    return begin(
        current().stores,
        name,
        config,
        fresh=fresh,
        on_change=on_change,
        checkpoint_every=checkpoint_every,
        seed=seed,
        init_from=init_from,
        say=say,
    )


@named_options
def evaluate(
    suite: Suite,
    model: Any,
    *,
    baseline: str | None = None,
    workers: int = 0,
    fresh: bool = False,
) -> Report:
    """Evaluate a model version on a suite, or find the evaluation that was already made.

    model     reference, or what `ps.train` gave
    baseline  reference that `not_worse` gates compare with; one that does not exist yet is said
    """
    only_in_scripts("evaluate")
    explaining.ends_at("evaluate")
    from penstock import evaluation

    with _in_turn() as first:
        report = evaluation.evaluate(
            current().stores,
            suite,
            reference_of(model),
            baseline=baseline,
            workers=workers,
            fresh=fresh and first,
        )
        say(report.why)
    return report


@named_options
def promote(model: Any, alias: str, *, evidence: Any) -> Alias:
    """Move an alias to a version whose evaluation passed every gate; Refused otherwise.

    evidence  what `ps.evaluate` gave, of exactly this version
    """
    only_in_scripts("promote")
    explaining.ends_at("promote")
    from penstock import registry

    proof = getattr(evidence, "evaluation", evidence)
    with _in_turn():
        moved = registry.promote(current().stores, reference_of(model), alias, proof)
        say(f"{moved.name}@{alias} is {moved.name}@{moved.version}")
    return moved


@named_options
def deploy(name: str, model: Any) -> Deployment:
    """Want the endpoint `name` to serve a model; `penstock up` brings it up and keeps it up."""
    only_in_scripts("deploy")
    explaining.ends_at("deploy")
    with _in_turn():
        found = current().deploy(name, reference_of(model))
        say(f"{found.name} is to serve {found.resolved}; `penstock up` keeps it up")
    return found


@contextmanager
def serve(name: str, model: Any, *, timeout: float = 60.0) -> Iterator[str]:
    """Serve a model while the context is open: `with ps.serve("digits", model) as address:`.

    timeout  seconds until it must answer; Unavailable then
    yields   "127.0.0.1:PORT", where it speaks the Open Inference Protocol v2 over gRPC
    """
    only_in_scripts("serve")
    only_in_one_process("serve")
    explaining.ends_at("serve")
    with current().serve(name, reference_of(model), timeout=timeout) as address:
        yield address


def load(reference: str) -> LoadedModel:
    """A model version that can be called with arrays or tensors, in this process."""
    from penstock import registry

    return registry.load(current().stores, reference)


def open_data(reference: str) -> Dataset:
    """One split of a dataset version, read when it is asked for.

    reference  NAME[@VERSION-OR-ALIAS]:SPLIT; without a split the dataset must have only one

    `len(data)`, `data[3]`, `data[:5]`, `data["label"]`, iteration over rows; `.schema`, `.splits`,
    `.statistics`, `.lineage`; `.to_arrow()`, `.to_pandas()`, `.to_polars()`, `.to_duckdb()`,
    `.to_numpy()`, `.to_torch()`, and `.to_batches()` for a stream.
    """
    from penstock.data import open_dataset

    return open_dataset(current().stores, explaining.opened(reference))


def reference_of(model: Any) -> str:
    """The reference of a model that is named by text or by what a verb gave."""
    found = model if isinstance(model, str) else getattr(model, "reference", None)
    if not isinstance(found, str):
        raise BadInput(
            f"a model is named by its reference, not by {model!r}",
            "Pass text such as digits-cnn@3, or what ps.train gave; a training function makes a "
            "model with run.publish.",
        )
    return found
