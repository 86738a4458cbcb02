"""What `prepare` was asked, checked, with the identity of everything that its rows depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from penstock.base.errors import BadInput
from penstock.base.hashing import digest_json
from penstock.data.expectations import Expectations, load
from penstock.data.formats import InputSource
from penstock.data.keys import KeyFunction
from penstock.data.manifest import Lineage
from penstock.data.preparation.bad import POLICIES
from penstock.data.preparation.from_function import told_types
from penstock.data.preparation.keying import CODE, chain_of
from penstock.data.preparation.sources import Opened
from penstock.data.preparation.splitting import Rule, rule_of
from penstock.data.preparation.steps import Made, entry_of, located
from penstock.data.preparation.whole import Whole
from penstock.data.types import Type, Types
from penstock.jobs.source import CodeIdentity, git_commit, identity


@dataclass(frozen=True)
class Asked:
    """key_code  identity of a key that is a function
    bad, bad_share, workers, unit_bytes, expect: as `prepare` has them
    """

    name: str
    steps: list[Made]
    key: str | KeyFunction | None
    key_code: CodeIdentity | None
    rule: Rule
    types: dict[str, Type]
    params: dict[str, Any]
    whole: Whole
    bad: str
    bad_share: float
    workers: int | None
    unit_bytes: int | None
    expect: Expectations | None

    def chain(self, identity: str) -> dict[str, Any]:
        """What units depend on beside their inputs; see `keying.py`."""
        last = [self._told_key(), self.rule.spec(), told_types(self.types), self.whole.same()]
        return chain_of(identity, [each.digest for each in self.steps], last)

    def _told_key(self) -> list[Any]:
        if self.key_code is not None:
            return ["function", self.key_code.digest]
        return ["column", self.key]

    @property
    def key_name(self) -> str:
        """For the lineage."""
        return entry_of(self.key)[0] if callable(self.key) else self.key or "content"

    def shared(self, source: InputSource, live: str, paths: Sequence[str]) -> dict[str, Any]:
        """What every unit is told. live: token of functions that stay here, "" when they travel.

        Raises CannotTravel.
        """
        column = self.key if isinstance(self.key, str) else ""
        kind = "function" if callable(self.key) else "column"
        entry = located(self.key).text if callable(self.key) and not live else ""
        return {
            "source": source.spec(),
            "chain": self.chain(source.identity),
            "steps": [{**each.spec(bool(live)), "name": each.name} for each in self.steps],
            "key": {"kind": kind, "column": column, "entry": entry},
            "split": self.rule.spec(),
            "types": {
                name: {"meaning": each.meaning, "options": each.options}
                for name, each in self.types.items()
            },
            "bad": self.bad,
            "same": self.whole.same(),
            "live": live,
            "paths": list(paths),
        }

    def lineage(self, opened: Opened, function: Any, inputs: str) -> Lineage:
        """inputs: the digest of all of them."""
        codes = [each.code for each in self.steps]
        functions = [each.function for each in self.steps]
        if function is not None:
            codes.insert(0, identity(function))
            functions.insert(0, function)
        if self.key_code is not None:
            codes.append(self.key_code)
        parts: dict[str, str] = {}
        for each in codes:
            parts |= each.parts
        entries = [entry_of(each) for each in functions]
        code = digest_json([each.digest for each in codes])
        content = digest_json(
            ["dataset of steps", CODE, inputs, code, self._told_key(), self.params,
             self.rule.spec(), told_types(self.types), self.whole.told(), self.bad,
             self.bad_share if self.bad == "skip" else 0,
             None if self.expect is None else self.expect.to_toml(),
             [each.keep for each in self.steps]]
        )  # fmt: skip
        return Lineage(
            function=" -> ".join([entry for entry, _ in entries] or [opened.label]),
            code=code,
            content=content,
            parts=parts,
            params=self.params,
            key=self.key_name,
            inputs=(inputs, *opened.versions),
            git=git_commit(entries[0][1] if entries else Path.cwd()),
        )

    def options(self) -> dict[str, Any]:
        """What is compared by value to tell why it runs again, beside code and inputs."""
        return {
            "steps": [each.name for each in self.steps],
            "bad": self.bad,
            "types": told_types(self.types),
            **self.whole.told(),
        }


def asked_of(
    name: str,
    steps: list[Made],
    key: str | KeyFunction | None,
    splits: Any,
    by: str | None,
    types: Types | None,
    params: dict[str, Any],
    whole: Whole,
    bad: str,
    bad_share: float,
    workers: int | None,
    unit_bytes: int | None,
    expect: str | Path | Expectations | None,
) -> Asked:
    """Raises BadInput for what cannot be meant."""
    if bad not in POLICIES:
        raise BadInput(f'bad="{bad}" is no way to treat records', f"One of {', '.join(POLICIES)}.")
    if not 0 <= bad_share <= 1:
        raise BadInput(f"bad_share={bad_share} is no share", "Give 0 to 1, such as 0.01.")
    if workers is not None and (isinstance(workers, bool) or workers < 0):
        raise BadInput(f"workers={workers!r} cannot be", "Give 0 (in this process) or more.")
    if unit_bytes is not None and (isinstance(unit_bytes, bool) or unit_bytes < 0):
        raise BadInput(f"unit_bytes={unit_bytes!r} cannot be", "Give a number of bytes, or 0.")
    for column, given in (types or {}).items():
        if not isinstance(given, Type):
            raise BadInput(
                f'types={{"{column}": {given!r}}} is no type',
                "Give an instance, for example Image().",
                column=column,
            )
    code = identity(key) if callable(key) else None
    return Asked(
        name=name,
        steps=steps,
        key=key,
        key_code=code,
        rule=rule_of(splits, by),
        types=dict(types or {}),
        params=params,
        whole=whole,
        bad=bad,
        bad_share=float(bad_share),
        workers=workers,
        unit_bytes=unit_bytes,
        expect=None if expect is None else load(expect),
    )


def as_dicts(columns: Sequence[Any]) -> list[dict[str, Any]]:
    """Columns as JSON has them."""
    return [asdict(each) for each in columns]
