"""A study as pictures: values over trials with the best so far, and each parameter against the
value. Plain SVG, written by hand; the page is one file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from penstock.home.views import StudyView, TrialView

WIDTH, HEIGHT = 420, 260  # of one panel, in pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 34, 40
_COLOURS = {"complete": "#2563a8", "pruned": "#b9b9b9", "failed": "#c0392b"}
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.t{font-weight:bold}.g{stroke:#e4e4e4}"
    ".a{stroke:#888}.best{fill:none;stroke:#d9822b;stroke-width:2}"
)
Scale = Callable[[Any], float]


def svg(study: StudyView) -> str:
    """All panels, two in a row."""
    panels = [_history(study), *(_parameter(study, path) for path in study.search["space"])]
    rows = (len(panels) + 1) // 2
    width, height = 2 * WIDTH, rows * HEIGHT + 30
    placed = "".join(
        f'<g transform="translate({WIDTH * (at % 2)},{30 + HEIGHT * (at // 2)})">{panel}</g>'
        for at, panel in enumerate(panels)
    )
    head = escape(f"{study.run.name}: {study.metric}, {study.direction}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}"><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="white"/>'
        f'<text class="t" x="16" y="22">{head}</text>{placed}</svg>\n'
    )


def html(study: StudyView) -> str:
    """The pictures, and all trials as a table."""
    paths = list(study.search["space"])
    columns = ["trial", "state", str(study.metric), "step", *paths]
    cells = [
        [each.name, each.state, _number(each.value), each.step, *(each.params[p] for p in paths)]
        for each in study.trials
    ]
    header = "".join(f"<th>{escape(str(each))}</th>" for each in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_text(value))}</td>" for value in row) + "</tr>"
        for row in cells
    )
    return (
        f'<!doctype html><html><head><meta charset="utf-8"><title>{escape(study.run.name)}</title>'
        "<style>body{font-family:sans-serif;margin:24px}td,th{padding:2px 14px 2px 0;"
        "text-align:left}</style></head>"
        f"<body>{svg(study)}<table><tr>{header}</tr>{body}</table></body></html>\n"
    )


def _shown(study: StudyView) -> list[TrialView]:
    """Trials that have a point: a finite value, settled."""
    return [
        each
        for each in study.trials
        if each.state in _COLOURS and each.value is not None and math.isfinite(each.value)
    ]


def _history(study: StudyView) -> str:
    """Values over trials, and the best complete one so far."""
    trials = _shown(study)
    across = _linear([each.number for each in trials], _LEFT, WIDTH - _RIGHT)
    up = _linear([each.value for each in trials], HEIGHT - _BOTTOM, _TOP)
    choose = max if study.direction == "maximize" else min
    best: float | None = None
    line = []
    for each in trials:
        if each.state != "complete":
            continue
        assert each.value is not None
        before, best = best, each.value if best is None else choose(best, each.value)
        if before is not None and before != best:
            line.append(f"{across(each.number):.1f},{up(before):.1f}")
        line.append(f"{across(each.number):.1f},{up(best):.1f}")
    drawn = f'<polyline class="best" points="{" ".join(line)}"/>' if line else ""
    numbers = sorted({each.number for each in trials})
    frame = _frame("value over trials", "trial", _ends(numbers), across, trials, up)
    return frame + drawn + _points(trials, lambda each: across(each.number), up)


def _parameter(study: StudyView, path: str) -> str:
    """One parameter against the value."""
    trials = _shown(study)
    facts = study.search["space"][path]
    values = [each.params[path] for each in trials]
    ends: Sequence[Any]
    if facts["kind"] == "choice":
        options = list(facts["options"])
        place = _linear(list(range(len(options))), _LEFT + 20, WIDTH - _RIGHT - 20)
        across: Scale = lambda value: place(options.index(value))  # noqa: E731
        ends = options
    elif facts["log"]:
        inner = _linear([math.log(facts["low"]), math.log(facts["high"])], _LEFT, WIDTH - _RIGHT)
        across = lambda value: inner(math.log(value))  # noqa: E731
        ends = [facts["low"], facts["high"]]
    else:
        across = _linear([facts["low"], facts["high"], *values], _LEFT, WIDTH - _RIGHT)
        ends = [facts["low"], facts["high"]]
    up = _linear([each.value for each in trials], HEIGHT - _BOTTOM, _TOP)
    frame = _frame(path, path + (" (log)" if facts.get("log") else ""), ends, across, trials, up)
    return frame + _points(trials, lambda each: across(each.params[path]), up)


def _frame(
    title: str,
    below: str,
    ends: Sequence[Any],
    across: Scale,
    trials: Sequence[TrialView],
    up: Scale,
) -> str:
    """Title, axes, and what their ends mean."""
    base, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = [f'<text class="t" x="{_LEFT}" y="20">{escape(title)}</text>']
    for value in _ends(sorted({each.value for each in trials if each.value is not None})):
        y = up(value)
        parts.append(f'<line class="g" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>'
        )
    parts.append(f'<line class="a" x1="{_LEFT}" x2="{right}" y1="{base}" y2="{base}"/>')
    parts.append(f'<line class="a" x1="{_LEFT}" x2="{_LEFT}" y1="{_TOP}" y2="{base}"/>')
    for value in ends:
        x, text = across(value), escape(_text(value))
        parts.append(f'<text x="{x:.1f}" y="{base + 16}" text-anchor="middle">{text}</text>')
    middle = (_LEFT + right) / 2
    name = escape(below)
    parts.append(f'<text x="{middle:.0f}" y="{base + 33}" text-anchor="middle">{name}</text>')
    return "".join(parts)


def _points(trials: Sequence[TrialView], across: Callable[[TrialView], float], up: Scale) -> str:
    return "".join(
        f'<circle cx="{across(each):.1f}" cy="{up(each.value):.1f}" r="4" '
        f'fill="{_COLOURS[each.state]}"><title>{escape(_about(each))}</title></circle>'
        for each in trials
    )


def _about(trial: TrialView) -> str:
    params = ", ".join(f"{path}={_text(value)}" for path, value in trial.params.items())
    return f"{trial.name}: {_number(trial.value)}, {trial.state}; {params}"


def _linear(values: Sequence[Any], start: float, end: float) -> Scale:
    """A function from values to pixels; all equal values lie in the middle."""
    low, high = min(values, default=0), max(values, default=1)
    if low == high:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _ends(values: Sequence[Any]) -> list[Any]:
    """The first and the last."""
    return [values[0], values[-1]] if len(values) > 1 else list(values)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
