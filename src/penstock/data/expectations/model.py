"""What is expected of a dataset, and what did not hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from penstock.base.errors import NotFound, Refused
from penstock.base.hashing import digest_bytes

Severity = Literal["warn", "quarantine", "refuse"]
SEVERITIES: tuple[str, ...] = get_args(Severity)
SHOWN = 5  # rows and samples that a violation keeps

DATASET, LEAKAGE = "dataset", "leakage"  # sections that are not columns


@dataclass(frozen=True, slots=True)
class Expectation:
    """One rule.

    section   "columns", "dataset" or "leakage"
    column    its name; "" outside of columns
    rule      name of the rule, see `rules.py`
    values    its numbers and names, as the file has them
    severity  what a violation does: "warn" tells; "quarantine" sets the rows aside (rules that
              look at one row at a time); "refuse" makes no version and starts no training
    """

    section: str
    column: str
    rule: str
    values: dict[str, Any] = field(hash=False)
    severity: Severity = "warn"

    @property
    def name(self) -> str:
        """For people: "columns.label.range"."""
        return ".".join(part for part in (self.section, self.column, self.rule) if part)


@dataclass(frozen=True, slots=True)
class Expectations:
    """All rules for one dataset, in the order of its file.

    about  what they were inferred from, such as "digits@3"
    """

    rules: tuple[Expectation, ...]
    about: str = ""

    def __len__(self) -> int:
        return len(self.rules)

    def of(self, section: str, column: str = "") -> list[Expectation]:
        return [each for each in self.rules if (each.section, each.column) == (section, column)]

    def with_severity(self, severity: Severity, *rules: str) -> Expectations:
        """The same with another severity for the rules of these names, such as "range"."""
        return replace(
            self,
            rules=tuple(
                replace(each, severity=severity) if each.rule in rules else each
                for each in self.rules
            ),
        )

    def to_toml(self) -> str:
        """The file that people edit; `from_toml` reads it back."""
        from penstock.data.expectations import file

        return file.to_toml(self)

    @staticmethod
    def from_toml(text: str, place: str = "the expectations") -> Expectations:
        """Raises BadInput that lists everything that is wrong with the text, with its place."""
        from penstock.data.expectations import file

        return file.from_toml(text, place)


@dataclass(frozen=True, slots=True)
class Place:
    """A row: its split, its number there, its key and its place in the raw data where these are
    known."""

    split: str
    row: int
    key: str | None = None
    where: str = ""

    def __str__(self) -> str:
        told = ", ".join(text for text in (self.key, self.where) if text)
        return f"{self.split}[{self.row}]" + (f" ({told})" if told else "")


@dataclass(frozen=True, slots=True)
class Violation:
    """An expectation that does not hold.

    what     one sentence: what was found
    count    rows that violate it; 0 where it is about the whole
    rows     the first of them
    samples  their values, as JSON has them; large ones cut short
    """

    expectation: Expectation
    what: str
    count: int = 0
    rows: tuple[Place, ...] = ()
    samples: tuple[Any, ...] = ()

    @property
    def severity(self) -> Severity:
        return self.expectation.severity

    def __str__(self) -> str:
        shown = ", ".join(
            f"{place}: {sample}" if sample is not None else str(place)
            for place, sample in zip(self.rows, self.samples, strict=True)
        )
        more = f" and {self.count - len(self.rows)} more" if self.count > len(self.rows) else ""
        return f"{self.expectation.name}: {self.what}" + (f" [{shown}{more}]" if shown else "")

    def as_dict(self) -> dict[str, Any]:
        """For the manifest's notes, the command line and the server."""
        return {
            "expectation": self.expectation.name,
            "severity": self.severity,
            "what": self.what,
            "count": self.count,
            "rows": [[each.split, each.row, each.key] for each in self.rows],
            "samples": list(self.samples),
        }

    @classmethod
    def of(cls, expectation: Expectation, found: Mapping[str, Any]) -> Violation:
        """What `as_dict` told of this expectation."""
        rows = tuple(Place(split, row, key) for split, row, key in found["rows"])
        return cls(expectation, found["what"], found["count"], rows, tuple(found["samples"]))


def refuse(violations: Iterable[Violation], where: str) -> None:
    """Raise Refused, naming all of them, when one of the violations refuses.

    where  what did not meet the expectations, such as "dataset digits"
    """
    found = [each for each in violations if each.severity == "refuse"]
    if found:
        raise Refused(
            f"{where} does not meet {len(found)} expectation{'s' if len(found) > 1 else ''}:\n  "
            + "\n  ".join(map(str, found)),
            'Mend the data, or edit the expectations: another value, or severity = "warn".',
            violations=[each.as_dict() for each in found],
        )


def digest_of(expectations: Expectations) -> str:
    """What tells files of expectations apart."""
    return digest_bytes(expectations.to_toml().encode())


def outcome(expectations: Expectations, violations: Iterable[Violation]) -> dict[str, Any]:
    """What a manifest notes under "expectations": digest of the file, rules, violations."""
    return {
        "digest": digest_of(expectations),
        "rules": len(expectations),
        "violations": [each.as_dict() for each in violations],
    }


def load(given: str | Path | Expectations) -> Expectations:
    """Expectations as they are, or from the file at a path. Raises NotFound, BadInput."""
    if isinstance(given, Expectations):
        return given
    try:
        text = Path(given).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(
            f"the expectations at {given} cannot be read: {error}",
            f"Infer them from a version: penstock data expect NAME --out {given}",
            path=str(given),
        ) from None
    return Expectations.from_toml(text, str(given))


def shown(value: Any) -> Any:
    """A value as a sample: JSON-able and short."""
    if isinstance(value, bool | int | float) or value is None:
        return value if not isinstance(value, float) or abs(value) < float("inf") else str(value)
    if isinstance(value, bytes):
        return f"{value[:12].hex()}{'…' if len(value) > 12 else ''} ({len(value)} bytes)"
    if isinstance(value, Sequence) and not isinstance(value, str):
        parts = ", ".join(map(str, value[:8]))
        return f"[{parts}{', …' if len(value) > 8 else ''}]"
    text = str(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
