"""How an account looks: a bar of where the seconds went, and a line for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from penstock.base.units import show_bytes, show_count, show_seconds
from penstock.cli.draw import Drawing, state

if TYPE_CHECKING:
    from penstock.monitoring import Account, Ledger, Throughput

COLOURS = {
    "productive": "green",
    "data": "yellow",
    "checkpoint": "blue",
    "evaluation": "cyan",
    "publishing": "bright_blue",
    "comparing": "bright_cyan",
    "recomputed": "magenta",
    "recovery": "bright_magenta",
    "hang": "red",
    "start-up": "white",
    "ending": "bright_black",
    "idle": "bright_black",
}
_WIDTH = 60  # cells of a bar


def account(draw: Drawing, found: Account, ranks: bool) -> None:
    """All ranks together; `ranks`: each of them too."""
    ledger = found.ledger
    draw.line(Text(found.name, style="bold"), "  ", state(found.state), "  ", found.run)
    draw.facts(
        {
            "wall time": show_seconds(ledger.wall),
            "ranks": len(ledger.ranks),
            "steps": _steps(ledger),
            "goodput": goodput(ledger),
            "throughput": ", ".join(rates(found.throughput)),
        }
    )
    draw.console.print()
    draw.line(bar(ledger.seconds, _WIDTH))
    draw.console.print()
    draw.table(
        ("where the time went", "> rank-seconds", "> share"),
        [
            (Text(f"■ {name}", style=COLOURS[name]), f"{value:.2f}", share(value, ledger))
            for name, value in by_size(ledger.seconds)
        ],
    )
    for line in slow(found):
        draw.console.print()
        draw.line(line)
    if ranks:
        names = [name for name, _ in by_size(ledger.seconds)]
        draw.title("by rank, seconds")
        draw.table(
            ("> rank", "> steps", *(f"> {name}" for name in names)),
            [
                (each.rank, each.steps, *(f"{each.seconds[name]:.2f}" for name in names))
                for each in ledger.ranks
            ],
        )


def slow(found: Account) -> list[Text]:
    """A line for each rank that keeps the others waiting."""
    from penstock.jobs.stragglers import said

    return [
        Text(said(s.rank, s.part, s.seconds, s.others, s.slowdown, s.waited), style="yellow")
        for s in found.stragglers
    ]


def rates(found: Throughput) -> list[str]:
    """What is known of samples, tokens, FLOPs, MFU and GPUs."""
    named = {"samples": found.samples, "tokens": found.tokens, "FLOP": found.flops}
    lines = [f"{_large(value)} {name}/s" for name, value in named.items() if value is not None]
    if found.mfu is not None:
        lines.append(f"MFU {100 * found.mfu:.1f} %")
    if found.gpu_busy is not None:
        lines.append(f"GPU {100 * found.gpu_busy:.0f} % busy")
    if found.gpu_bytes is not None:
        lines.append(f"{show_bytes(found.gpu_bytes)} of its memory")
    return lines


def _large(value: float) -> str:
    """Four digits and a prefix.

    >>> _large(12.3456), _large(123456.0), _large(9.89e14)
    ('12.35', '123.5k', '989T')
    """
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.4g}{prefix}"
    return f"{value:.4g}"


class Bar:
    """The bar as wide as there is room."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield bar(self._seconds, options.max_width)


def by_size(seconds: dict[str, float]) -> list[tuple[str, float]]:
    """Classes that have any, the largest first."""
    found = [(name, value) for name, value in seconds.items() if value > 0]
    return sorted(found, key=lambda each: -each[1])


def bar(seconds: dict[str, float], width: int) -> Text:
    """One line of `width` cells, each class with its share of them: the largest remainders get
    the cells that are left."""
    total = sum(seconds.values())
    shown = by_size(seconds)
    if not shown:
        return Text("·" * width, style="dim")
    exact = [value / total * width for _, value in shown]
    cells = [int(each) for each in exact]
    order = sorted(range(len(shown)), key=lambda i: cells[i] - exact[i])
    for i in order[: width - sum(cells)]:
        cells[i] += 1
    return Text.assemble(
        *(("█" * n, COLOURS[name]) for (name, _), n in zip(shown, cells, strict=True))
    )


def share(value: float, ledger: Ledger) -> str:
    return f"{100 * value / ledger.rank_seconds:.1f} %" if ledger.rank_seconds else "-"


def goodput(ledger: Ledger) -> str | None:
    return None if ledger.goodput is None else f"{100 * ledger.goodput:.1f} %"


def _steps(ledger: Ledger) -> str:
    again = ledger.recomputed_steps
    more = f", {show_count(again, 'step')} of them once more" if again else ""
    return f"{ledger.steps}{more}"
