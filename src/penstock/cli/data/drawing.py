"""How versions look on a terminal; models look the same."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.cli.draw import Drawing
    from penstock.home.views import VersionDetail, VersionView

_DIGEST = re.compile(r"(sha256:[0-9a-f]{8})[0-9a-f]{56}")
_NEWLINE = re.compile(r"\s*\n\s*")
_SHOWN = 20  # entries of a long list


def draw_versions(draw: Drawing, views: list[VersionView], empty: str) -> None:
    """One line per version: reference, aliases, what its summary says."""
    from penstock.cli.draw import age

    draw.table(
        ("reference", "aliases", "made", "summary", "by"),
        [
            (
                each.version.reference,
                ", ".join([*each.aliases, *(f'"{tag}"' for tag in each.tags)]),
                age(each.version.created_at),
                pairs(each.version.summary),
                pairs(each.version.producer),
            )
            for each in views
        ],
        empty=empty,
    )


def draw_version(draw: Drawing, detail: VersionDetail) -> None:
    """A version and the parts of its manifest, each as far as it fits."""
    from rich.text import Text

    from penstock.cli.draw import age

    version = detail.version
    aliases = ", ".join(alias.alias for alias in detail.aliases)
    draw.line(Text(version.reference, style="bold"), "  ", Text(aliases, style="green"))
    draw.facts(
        {
            "made": age(version.created_at),
            "by": pairs(version.producer),
            "tags": ", ".join(detail.tags),
            "digest": version.digest,
            **{key: pairs(value) for key, value in version.summary.items()},
        }
    )
    for name, value in detail.manifest.items():
        if isinstance(value, dict) and value:
            draw.title(name)
            draw.facts({str(key): pairs(inner) for key, inner in value.items()})
        elif isinstance(value, list) and value:
            draw.title(f"{name} ({len(value)})")
            _draw_list(draw, value[:_SHOWN])


def _draw_list(draw: Drawing, items: list[Any]) -> None:
    """A table where all have the same keys, else a line each."""
    if all(isinstance(item, dict) and item.keys() == items[0].keys() for item in items):
        columns = sorted(items[0], key=lambda key: (key != "name", key))
        draw.table(columns, [[pairs(item[key]) for key in columns] for item in items])
        return
    for item in items:
        draw.line(pairs(item))


def pairs(value: Any, limit: int = 160) -> str:
    """A value on one line: digests and the whole shortened, what is empty left out.

    >>> pairs({"train": 3, "test": {"rows": 1, "note": None}, "made by": "run/sha256:" + "ab" * 32})
    'train 3 · test rows 1 · made by run/sha256:abababab'
    >>> pairs("one line\\n  and another")
    'one line and another'
    """
    if isinstance(value, dict):
        full = {key: inner for key, inner in value.items() if inner not in (None, "", [], {})}
        text = " · ".join(f"{key} {_moment(key, inner, limit)}" for key, inner in full.items())
    elif isinstance(value, list | tuple):
        text = ", ".join(pairs(inner, limit) for inner in value)
    elif isinstance(value, float):
        text = f"{value:.4g}"
    else:
        text = "" if value is None else _DIGEST.sub(r"\1", _NEWLINE.sub(" ", str(value)))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _moment(key: str, value: Any, limit: int) -> str:
    """A value under its key: seconds since 1970 as a date, all else as it is."""
    if (key == "at" or key.endswith("_at")) and isinstance(value, float):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    return pairs(value, limit)
