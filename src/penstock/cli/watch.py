"""`penstock runs watch`: a run on one screen, drawn anew every second."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live as Screen
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from penstock.base.units import show_bytes, show_seconds
from penstock.cli import accounts
from penstock.cli.draw import age, state
from penstock.records.runs import ENDED
from penstock.training.follow import lines_of

if TYPE_CHECKING:
    from penstock.home import Home
    from penstock.monitoring import Ledger, Live, RankNow, Watched

_EVERY = 1.0  # seconds between two frames
_BLOCKS = "▁▂▃▄▅▆▇█"
_SERIES = 6  # scalars that are shown
_EVENTS = 8  # lines of events
_RANKS = 16  # ranks that are shown, those behind first
_SPARK = 32  # cells
_SILENT = 10.0  # seconds without a word after which a rank is marked


def follow(home: Home, run: str) -> int:
    """Draw until the run ends or Ctrl-C, which leaves the run as it is; the last frame stays."""
    console = Console()
    found = home.watch(run)
    try:
        with Screen(console=console, screen=True, auto_refresh=False) as screen:
            while found.account.state not in ENDED:
                screen.update(frame(found), refresh=True)
                time.sleep(_EVERY)
                found = home.watch(found.account.run)
    except KeyboardInterrupt:
        pass
    console.print(frame(found))
    return 0


def is_person() -> bool:
    return sys.stdout.isatty()


def frame(found: Watched) -> RenderableType:
    """All of it, as one thing to draw."""
    account, live = found.account, found.live
    title = Text.assemble((account.name, "bold"), "  ", state(account.state))
    parts: list[RenderableType] = [_progress(live, account.ledger), Text(), _ledger(account.ledger)]
    if live.ranks and account.state not in ENDED:
        parts += [Text(), _ranks(live.ranks, account.state != "interrupted")]
        parts += accounts.slow(account)
    if live.series:
        parts += [Text(), _metrics(live)]
    if live.checkpoints:
        newest = live.checkpoints[0]
        kept = ", ".join(str(each.step) for each in live.checkpoints[1:])
        more = f"; before it {kept}" if kept else ""
        size = show_bytes(newest.bytes)
        line = f"step {newest.step}, {size}, {age(newest.created_at, account.at)}{more}"
        parts += [Text(), Text.assemble(("checkpoint  ", "dim"), line)]
    if lines := _events(found):
        parts += [Text(), *lines]
    return Panel(
        Group(*parts),
        title=title,
        title_align="left",
        subtitle=Text(f"{account.run}  attempt {live.attempt}", style="dim"),
        subtitle_align="right",
        border_style="dim",
        padding=(1, 2),
    )


def _progress(live: Live, ledger: Ledger) -> RenderableType:
    done = Text.assemble((f"{live.step:,}", "bold"), f" / {live.steps:,}" if live.steps else "")
    table = Table.grid(padding=(0, 3))
    facts: RenderableType = table
    table.add_row(
        Text.assemble(("step  ", "dim"), done),
        _fact("pace", None if live.pace is None else f"{_short(live.pace)} steps/s"),
        _fact("left", None if live.eta is None else show_seconds(live.eta)),
        _fact("time", show_seconds(ledger.wall)),
        _fact("goodput", accounts.goodput(ledger)),
    )
    if lines := accounts.rates(live.throughput):
        facts = Group(facts, Text("   ").join(Text(line) for line in lines))
    if not live.steps:
        return facts
    bar = ProgressBar(total=live.steps, completed=live.step, complete_style="cyan")
    return Group(facts, Text(), bar)


def _fact(name: str, value: str | None) -> Text:
    return Text.assemble((f"{name}  ", "dim"), value or "-")


def _ledger(ledger: Ledger) -> RenderableType:
    legend = Text("  ").join(
        Text.assemble(("■ ", accounts.COLOURS[name]), f"{name} {accounts.share(value, ledger)}")
        for name, value in accounts.by_size(ledger.seconds)
    )
    return Group(accounts.Bar(ledger.seconds), legend)


def _ranks(ranks: Sequence[RankNow], going_on: bool) -> RenderableType:
    """The ones that are behind first where not all can be shown."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for name in ("rank", "step", "behind"):
        table.add_column(name, justify="right")
    for name in ("doing", "last word"):
        table.add_column(name)
    shown = sorted(ranks, key=lambda each: (-each.behind, -each.seconds))[:_RANKS]
    for each in sorted(shown, key=lambda each: each.rank):
        silent = going_on and each.seconds > _SILENT
        table.add_row(
            str(each.rank),
            "-" if each.step is None else f"{each.step:,}",
            Text(str(each.behind), style="yellow" if each.behind > 1 else "dim"),
            each.phase if going_on else "-",
            Text(f"{show_seconds(each.seconds)} ago", style="yellow" if silent else "dim"),
        )
    if len(ranks) <= _RANKS:
        return table
    return Group(table, Text(f"and {len(ranks) - _RANKS} more ranks", style="dim"))


def _metrics(live: Live) -> RenderableType:
    table = Table.grid(padding=(0, 3))
    for name, points in list(live.series.items())[:_SERIES]:
        values = [value for _, value in points]
        at = Text(f"step {points[-1][0]}", style="dim")
        table.add_row(name, Text(spark(values, _SPARK), style="cyan"), _short(values[-1]), at)
    return table


def _events(found: Watched) -> list[Text]:
    lines = []
    for event in found.live.events:
        at = time.strftime("%H:%M:%S", time.localtime(event.at))
        for line in lines_of(event):
            lines.append(Text.assemble((f"{at}  ", "dim"), line, no_wrap=True, overflow="ellipsis"))
    return lines[-_EVENTS:]


def spark(values: Sequence[float], width: int) -> str:
    """A line of blocks, each the mean of its part of the values; what is not finite is left out.

    >>> spark([0, 1, 2, 3], 4), spark([5.0], 4), spark([float("nan")], 4)
    ('▁▃▆█', '▁', '')
    """
    finite = [each for each in values if abs(each) < float("inf")]
    cells = min(width, len(finite))
    means = []
    for cell in range(cells):
        part = finite[cell * len(finite) // cells : (cell + 1) * len(finite) // cells]
        means.append(sum(part) / len(part))
    low, high = min(means, default=0.0), max(means, default=0.0)
    top = len(_BLOCKS) - 1
    scale = top / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((each - low) * scale)] for each in means)


def _short(value: float) -> str:
    return f"{value:.4g}"
