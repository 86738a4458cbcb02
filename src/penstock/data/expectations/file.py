"""Expectations as a TOML file that people read and edit."""

from __future__ import annotations

import datetime as dt
import json
import re
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, cast

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean
from penstock.data.expectations.model import (
    DATASET,
    LEAKAGE,
    SEVERITIES,
    Expectation,
    Expectations,
    Severity,
)
from penstock.data.expectations.rules import DATASET_RULES, LEAKAGE_RULES, RULES
from penstock.data.times import is_iso

FORMAT = 1
_WIDTH = 100
_ONE_LINE = 32  # letters of a list; longer ones get lines of their own
_COLUMNS = "columns"
_HEAD = """\
Each rule says with its severity what happens where it does not hold: "warn" tells; "quarantine"
sets the rows aside (rules that look at one row at a time); "refuse" makes no new version, and
starts no training. Change what you know better, and delete what does not matter.\
"""
_BARE = re.compile(r"[A-Za-z0-9_-]+")

Fields = Mapping[str, tuple[str, bool]]


def to_toml(found: Expectations) -> str:
    """The file: a head that explains every rule that is used, then the sections in order."""
    return "\n".join([*_head(found), f"format = {FORMAT}", *_sections(found)]) + "\n"


def _head(found: Expectations) -> Iterator[str]:
    yield f"# What is expected of {found.about or 'this dataset'}."
    yield "#"
    yield from (f"# {line}" for line in _HEAD.splitlines())
    yield "#"
    for rule in dict.fromkeys((each.section, each.rule) for each in found.rules):
        told = textwrap.wrap(f"{rule[1] + ':':15}{_words(*rule)}", 96, subsequent_indent=" " * 15)
        yield from (f"# {line}" for line in told)
    yield ""


def _words(section: str, rule: str) -> str:
    if section == _COLUMNS:
        return RULES[rule].words
    return (DATASET_RULES if section == DATASET else LEAKAGE_RULES)[rule][0]


def _sections(found: Expectations) -> Iterator[str]:
    for section, column in dict.fromkeys((each.section, each.column) for each in found.rules):
        yield ""
        yield f"[{section}.{_key(column)}]" if section == _COLUMNS else f"[{section}]"
        for each in found.of(section, column):
            pairs = {**each.values, "severity": each.severity}.items()
            inside = ", ".join(f"{_key(name)} = {_value(value)}" for name, value in pairs)
            yield f"{_key(each.rule)} = {{ {inside} }}"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        parts = [_value(each) for each in value]
        line = f"[{', '.join(parts)}]"
        if len(line) <= _ONE_LINE:
            return line
        lines = textwrap.wrap(
            ", ".join(part.replace(" ", "\0") for part in parts),
            _WIDTH - 4,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return "[\n" + "\n".join(f"    {each}" for each in lines).replace("\0", " ") + "\n]"
    return repr(value)


def from_toml(text: str, place: str) -> Expectations:
    """Parse and check. Raises BadInput that lists everything that is wrong, with its place."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(
            f"{place} does not parse as TOML: {error}", "Mend the line.", place=place
        ) from None
    if (version := data.get("format", FORMAT)) != FORMAT:
        raise BadInput(
            f"{place} has format {version!r}; this Penstock reads {FORMAT}",
            "Use the Penstock that wrote it, or a newer one.",
            place=place,
        )
    reading = _Reading()
    rules = [
        *reading.section(data, DATASET, {n: fields for n, (_, fields) in DATASET_RULES.items()}),
        *reading.columns(data),
        *reading.section(data, LEAKAGE, {n: fields for n, (_, fields) in LEAKAGE_RULES.items()}),
    ]
    reading.unknown("", data, ("format", DATASET, _COLUMNS, LEAKAGE))
    if reading.wrong:
        raise BadInput(
            f"{place} cannot be what was meant:\n  " + "\n  ".join(reading.wrong),
            "Mend these, or infer the expectations anew from a version that is as it should be.",
            place=place,
            wrong=reading.wrong,
        )
    about = re.match(r"# What is expected of (.+)\.\n", text)
    return Expectations(tuple(rules), "" if about is None else about[1].strip())


class _Reading:
    """wrong  everything that is wrong so far"""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    def unknown(self, where: str, found: Mapping[str, Any], known: Any) -> None:
        for name in found:
            if name not in known:
                place = f"{where}.{name}" if where else name
                self.wrong.append(f"{place}: there is no such name. {did_you_mean(name, known)}")

    def table(self, data: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
        found = data.get(name, {})
        if isinstance(found, Mapping):
            return found
        self.wrong.append(f"{where}: it is {found!r}, not a table")
        return {}

    def columns(self, data: Mapping[str, Any]) -> Iterator[Expectation]:
        columns = self.table(data, _COLUMNS, _COLUMNS)
        for column in columns:
            where = f"{_COLUMNS}.{column}"
            rules = self.table(columns, column, where)
            self.unknown(where, rules, RULES)
            for name in (each for each in rules if each in RULES):
                values = self.rule(rules, name, f"{where}.{name}", RULES[name].fields)
                if values is None:
                    continue
                severity = self.severity(
                    rules[name], f"{where}.{name}", RULES[name].sets_aside(values)
                )
                if name == "distribution":
                    self.bins(values, f"{where}.{name}")
                yield Expectation(_COLUMNS, column, name, values, severity)

    def section(
        self, data: Mapping[str, Any], section: str, known: Mapping[str, Fields]
    ) -> Iterator[Expectation]:
        rules = self.table(data, section, section)
        self.unknown(section, rules, known)
        for name in (each for each in rules if each in known):
            where = f"{section}.{name}"
            values = self.rule(rules, name, where, known[name])
            if values is not None:
                severity = self.severity(rules[name], where, False)
                yield Expectation(section, "", name, values, severity)

    def rule(
        self, rules: Mapping[str, Any], name: str, where: str, fields: Fields
    ) -> dict[str, Any] | None:
        """The values of a rule; None when one of them is wrong."""
        found = self.table(rules, name, where)
        before = len(self.wrong)
        self.unknown(where, found, (*fields, "severity"))
        for field, (kind, needed) in fields.items():
            if field not in found:
                if needed:
                    self.wrong.append(f"{where}: it lacks `{field}`")
            elif not _KINDS[kind](found[field]):
                self.wrong.append(f"{where}.{field}: {found[field]!r} is no {_CALLED[kind]}")
        if len(self.wrong) > before:
            return None
        return {field: _as_text(found[field]) for field in fields if field in found}

    def severity(self, rule: Any, where: str, sets_aside: bool) -> Severity:
        found = rule.get("severity", "warn")
        if found not in SEVERITIES:
            self.wrong.append(f"{where}.severity: {found!r} is none of {', '.join(SEVERITIES)}")
            return "warn"
        if found == "quarantine" and not sets_aside:
            self.wrong.append(
                f"{where}.severity: no single row breaks this rule, so none can be set aside; "
                "warn or refuse"
            )
        return cast(Severity, found)

    def bins(self, values: Mapping[str, Any], where: str) -> None:
        if ("edges" in values) == ("names" in values):
            self.wrong.append(f"{where}: it needs either `edges` or `names`")
            return
        bins = len(values.get("edges", values.get("names", ()))) + 1
        if len(values["shares"]) != bins:
            self.wrong.append(
                f"{where}: {bins} bins (one more than edges or names) need as many shares, "
                f"not {len(values['shares'])}"
            )
        edges = [each for each in values.get("edges", []) if _is_number(each)]  # times: when asked
        if any(low >= high for low, high in pairwise(edges)):
            self.wrong.append(f"{where}.edges: they do not ascend")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _is_pattern(value: Any) -> bool:
    try:
        re.compile(value)
    except (re.error, TypeError):
        return False
    return isinstance(value, str)


def _is_end(value: Any) -> bool:
    value = _as_text(value)
    return is_iso(value) if isinstance(value, str) else _is_number(value)


def _as_text(value: Any) -> Any:
    """TOML's own times as ISO text."""
    if isinstance(value, list):
        return [_as_text(each) for each in value]
    return value.isoformat() if isinstance(value, dt.date | dt.time) else value


_KINDS: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "number": _is_number,
    "share": lambda value: _is_number(value) and 0 <= value <= 1,
    "numbers": lambda value: isinstance(value, list) and all(map(_is_number, value)),
    "end": _is_end,
    "ends": lambda value: isinstance(value, list) and all(map(_is_end, value)),
    "names": lambda value: (
        isinstance(value, list) and all(isinstance(each, str | int) for each in value)
    ),
    "pattern": _is_pattern,
}
_CALLED = {
    "text": "text",
    "number": "number",
    "share": "share from 0 to 1",
    "numbers": "list of numbers",
    "end": "number or time (ISO text)",
    "ends": "list of numbers or times (ISO text)",
    "names": "list of names or whole numbers",
    "pattern": "regular expression",
}
