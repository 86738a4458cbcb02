"""`penstock runs`: to look at them, to steer them, and what they kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from penstock.cli.frame import Answer, Stream, command, group, home, options

if TYPE_CHECKING:
    from penstock.home import Home

app = group("Runs: what is training or has trained, its logs, its processes.")

Role = Literal["rank", "agent", "controller", "image", "sidecar", "data", "all"]
Format = Literal["torch", "safetensors", "dcp"]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name, id or start of an id.")]
MaybeRun = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="Name, id or start of an id; default: the newest."),
]


def newest(home: Home, run: str | None) -> str:
    """The run that was named, or the newest training, or the newest. NotFound without any."""
    from penstock.base.errors import NotFound

    if run is not None:
        return run
    found = home.runs(limit=50)
    for each in [*(view for view in found if view.work == "train"), *found]:
        return each.id
    raise NotFound(
        f"no run in {home.where} yet", "Start one: `penstock demo`, or run a training script."
    )


@command(app, "list", ["penstock runs list", "penstock runs list --state running --json"])
def list_runs(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only this name.")] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many, newest first.")] = 20,
    state: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATE", help="Only this state (running, finished, …); may be given again."
        ),
    ] = None,
) -> Answer:
    """Runs, newest first."""
    from penstock.cli import show

    views = home().runs(limit=limit, name=name, states=state)
    return Answer(views, lambda draw: show.runs(draw, views))


@command(app, "show", ["penstock runs show", "penstock runs show base --json"])
def show_run(run: MaybeRun = None) -> Answer:
    """One run: its state, configuration, attempts, checkpoints, last metrics."""
    from penstock.cli import show

    at = home()
    detail = at.run(newest(at, run))
    return Answer(detail, lambda draw: show.run(draw, detail))


@command(app, "logs", ["penstock runs logs base", "penstock runs logs base --rank 1 -f"])
def logs(
    run: MaybeRun = None,
    rank: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Only this rank's lines.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends.")] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Also its controller, agent, image and sidecars.")
    ] = False,
) -> Stream:
    """What a run's processes printed; -f follows, with its progress on a terminal."""
    from penstock.cli.follow import lines_with_progress

    at = home()
    named = newest(at, run)
    return Stream(lines_with_progress(at, named, rank, follow, every))


@command(app, "metrics", ["penstock runs metrics base", "penstock runs metrics base train/loss"])
def metrics(
    run: RunName,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Only these; default: all.")
    ] = None,
) -> Answer:
    """Scalars of a run over its steps, means over its ranks."""
    from penstock.cli import show

    series = home().metrics(run, names or ())
    return Answer(series, lambda draw: show.metrics(draw, series))


@command(app, "account", ["penstock runs account base", "penstock runs account base --ranks"])
def account(
    run: MaybeRun = None,
    ranks: Annotated[bool, typer.Option("--ranks", help="Each rank too.")] = False,
) -> Answer:
    """Where the seconds of a training went, and its goodput; also while it goes on."""
    from penstock.cli import accounts

    at = home()
    found = at.account(newest(at, run))
    return Answer(found, lambda draw: accounts.account(draw, found, ranks))


@command(app, "watch", ["penstock runs watch base", "penstock runs watch base --once"])
def watch(
    run: MaybeRun = None,
    once: Annotated[bool, typer.Option("--once", help="One frame, then leave.")] = False,
) -> Answer | int:
    """A training on one screen, live; Ctrl-C leaves, and the run goes on."""
    from penstock.cli import watch as screen

    at = home()
    named = newest(at, run)
    if options.json or once or not screen.is_person():
        found = at.watch(named)
        return Answer(found, lambda draw: draw.frame(screen.frame(found)))
    return screen.follow(at, named)


@command(
    app,
    "study",
    ["penstock runs study search", "penstock runs study search --plot search.html"],
)
def study(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the study.")],
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also draw it: FILE.svg, or FILE.html with a table."),
    ] = None,
) -> Answer:
    """A search over a config's values: its trials, which are runs, and the best of them."""
    from penstock.cli import studying

    if plot is not None:
        studying.check_plot(plot)
    found = home().study(name)
    if plot is not None:
        studying.write_plot(found, plot)
    return Answer(found, lambda draw: studying.study(draw, found, plot))


@command(app, "stop", ["penstock runs stop base"])
def stop(run: RunName) -> Answer:
    """Let a run make a checkpoint and end; `resume` goes on from there."""
    view = home().stop_run(run)
    return Answer(
        view, lambda draw: draw.line(f"{view.name} ({view.id}) was asked to stop: {view.state}")
    )


@command(app, "resize", ["penstock runs resize base 4"])
def resize(
    run: RunName,
    workers: Annotated[int, typer.Argument(min=1, metavar="N", help="Ranks from now on.")],
) -> Answer:
    """Let a run that was begun with a range of workers go on with another number of them."""
    view = home().resize_run(run, workers)
    return Answer(
        view,
        lambda draw: draw.line(
            f"{view.name} ({view.id}) was asked to go on with {workers}: now {view.workers}"
        ),
    )


@command(app, "resume", ["penstock runs resume base"])
def resume(run: RunName) -> Answer:
    """Go on with a run that was stopped, has failed or was interrupted; it runs detached."""
    return _resumed(run)


def _resumed(run: str) -> Answer:
    view = home().resume_run(run)
    return Answer(
        view,
        lambda draw: draw.line(
            f"{view.name} ({view.id}) goes on; follow it: penstock runs logs {view.name} -f"
        ),
    )


@command(app, "retry", ["penstock runs retry base"])
def retry(run: RunName) -> Answer:
    """Go on with a run that has failed: the same as `resume`, with all its tries again."""
    return _resumed(run)


@command(app, "fork", ["penstock runs fork base@2000 lr=1e-4", "penstock runs fork base@best"])
def fork(
    origin: Annotated[
        str,
        typer.Argument(
            metavar="RUN[@STEP]", help="Where it begins; default: the newest whole checkpoint."
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Change the config.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the new run; default: RUN-fork-N.")
    ] = None,
) -> Answer:
    """Start a new run from a checkpoint of another, with its code, data and config; detached."""
    from penstock.cli import show

    made = home().fork_run(origin, overrides or (), name)
    return Answer(made, lambda draw: show.forked(draw, made))


@command(app, "pids", ["kill -9 $(penstock runs pids)", "penstock runs pids base --json"])
def pids(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="Name, id or start of an id; default: all that run."),
    ] = None,
    role: Annotated[Role, typer.Option(help="Which of its processes.")] = "rank",
) -> Answer:
    """Bare pids of a run's ranks, for kill; --json says all of each."""
    found = [each for each in home().pids(run) if role in ("all", each.role)]
    return Answer(found, lambda draw: draw.line(" ".join(str(each.pid) for each in found)))


@command(app, "queue", ["penstock runs queue", "penstock runs queue --json"])
def queue() -> Answer:
    """Which runs hold GPUs (and cores), and which wait for whom."""
    from penstock.cli import show

    found = home().queue()
    return Answer(found, lambda draw: show.queue(draw, found))


@command(app, "verify", ["penstock runs verify base"])
def verify(run: MaybeRun = None) -> Answer:
    """Read every checkpoint of a run and compare its bytes with their hashes."""
    from penstock.cli import show

    at = home()
    verdicts = at.verify_run(newest(at, run))
    damaged = any(not each.whole for each in verdicts)
    return Answer(verdicts, lambda draw: show.verdicts(draw, verdicts), 6 if damaged else 0)


@command(
    app,
    "checkpoints",
    ["penstock runs checkpoints base", "penstock runs checkpoints base --verify --json"],
)
def checkpoints(
    run: MaybeRun = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read their bytes and compare them with their hashes.")
    ] = False,
) -> Answer:
    """The checkpoints of a run: size, metrics, and what each is kept for."""
    from penstock.cli import show

    at = home()
    found = at.checkpoints(newest(at, run), verify)
    damaged = any(each.whole is False for each in found)
    return Answer(found, lambda draw: show.checkpoints(draw, found), 6 if damaged else 0)


Pinned = Annotated[
    str, typer.Argument(metavar="RUN@STEP", help="A checkpoint; RUN@best is the marked one.")
]


@command(app, "pin", ["penstock runs pin base@2000", "penstock runs pin base@best --note paper"])
def pin(
    checkpoint: Pinned,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Why; one line.")] = "",
) -> Answer:
    """Keep a checkpoint, however many newer ones come."""
    made = home().pin_checkpoint(checkpoint, note)
    return Answer(made, lambda draw: draw.line(f"step {made.step} of {made.run} is pinned"))


@command(app, "unpin", ["penstock runs unpin base@2000"])
def unpin(checkpoint: Pinned) -> Answer:
    """Let a pinned checkpoint go again, with the next one that the run makes."""
    made = home().unpin_checkpoint(checkpoint)
    return Answer(made, lambda draw: draw.line(f"step {made.step} of {made.run} is not pinned"))


@command(
    app,
    "export",
    [
        "penstock runs export base@2000 base.pt",
        "penstock runs export base@best weights.safetensors --format safetensors",
        "penstock runs export base folder --format dcp",
    ],
)
def export(
    checkpoint: Annotated[
        str,
        typer.Argument(metavar="RUN[@STEP]", help="Without a step: the newest whole checkpoint."),
    ],
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file, or for dcp a folder; new.")],
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="torch: all states, for torch.load; safetensors: the models' weights; dcp: all "
            "states, for torch.distributed.checkpoint.",
        ),
    ] = "torch",
) -> Answer:
    """Write a checkpoint as a file that others read; it is there with all of it, or not at all."""
    from penstock.cli import show

    made = home().export_checkpoint(checkpoint, path, form)
    return Answer(made, lambda draw: show.exported(draw, made))


@command(
    app,
    "import",
    ["penstock runs import old old.pt", "penstock runs import old weights.safetensors --step 2000"],
)
def import_file(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the run it becomes; new.")],
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A file of torch or safetensors, a DCP folder.")
    ],
    form: Annotated[
        Format | None, typer.Option("--format", help="Default: guessed from the path.")
    ] = None,
    step: Annotated[
        int, typer.Option(min=0, metavar="N", help="The number that its checkpoint gets.")
    ] = 0,
) -> Answer:
    """Make a file the checkpoint of a new run, to begin from: init_from=NAME. Runs no code."""
    made = home().import_checkpoint(name, path, form, step)
    return Answer(made, lambda draw: draw.line(f"{name}@{made.step} ({made.run})"))
