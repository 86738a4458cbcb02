"""The `penstock` command: the nouns put together, one place for failures and exit codes.

Only typer is imported to parse and to show help; whatever a command needs, it imports itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from penstock.cli import (
    cluster,
    data,
    deployments,
    doctor,
    evals,
    events,
    failure,
    gc,
    models,
    runs,
    up,
)
from penstock.cli.frame import HomeOption, Json, close_homes, command, options

app = typer.Typer(
    name="penstock",
    help="Carries a model through its whole life: data, training, evaluation, registry, serving.",
    epilog="Start with:\n  $ penstock demo\n  $ penstock runs list\n  $ penstock doctor",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(runs.app, name="runs")
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.add_typer(evals.app, name="evals")
app.add_typer(deployments.app, name="deployments")
app.add_typer(cluster.app, name="cluster")
up.register(app)
doctor.register(app)
gc.register(app)
events.register(app)


@command(app, "demo", ["penstock demo", "penstock demo --slow", "penstock demo --json"])
def demo(
    slow: Annotated[
        bool, typer.Option("--slow", help="Train for long, so that you can kill it yourself.")
    ] = False,
) -> int:
    """Run the whole life of a model on real digits, kills and damage included."""
    from penstock.cli.demo import run as run_demo

    return run_demo(slow=slow, home=options.home, as_json=options.json)


def _show_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        sys.stdout.write(f"penstock {importlib.metadata.version('penstock')}\n")
        raise typer.Exit


@app.callback()
def everywhere(
    at_home: HomeOption = None,
    as_json: Json = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Carries a model through its whole life: data, training, evaluation, registry, serving."""
    options.home = at_home
    options.json = as_json


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; nothing escapes as a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code: Any = app(args=given, prog_name="penstock", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the one place for failures
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stdout.write(error.format_message() + "\n")  # type: ignore[union-attr]
            return 2
        if type(error).__name__ == "Abort":
            error = KeyboardInterrupt()
        return failure.report(error, as_json="--json" in given)
    finally:
        close_homes()


def main() -> None:
    """Entry point of the `penstock` script."""
    sys.exit(run())


if __name__ == "__main__":
    main()
