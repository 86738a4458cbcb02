"""How a version is named in text: NAME[@VERSION-OR-ALIAS][:SPLIT]."""

from __future__ import annotations

import re
from dataclasses import dataclass

from penstock.base.errors import BadInput

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*"
_FORM = re.compile(
    rf"(?P<name>{_NAME})(?:@(?P<at>[A-Za-z0-9][A-Za-z0-9._-]*))?(?::(?P<split>[\w-]+))?"
)


def check_name(name: str, what: str = "name") -> str:
    """Return `name`, or refuse what could not be written in a reference or become a path."""
    if re.fullmatch(_NAME, name) is None or len(name) > 200:
        raise BadInput(
            f'"{name}" cannot be a {what}',
            "Use letters, digits, '.', '_' and '-', with '/' between parts; start with a letter.",
            name=name,
        )
    return name


@dataclass(frozen=True, slots=True)
class Reference:
    """A dataset or model version, by number, by alias, or the newest.

    >>> Reference.parse("team/digits@3:train")
    Reference(name='team/digits', version=3, alias=None, split='train')
    >>> str(Reference.parse("digits-cnn@production"))
    'digits-cnn@production'
    """

    name: str
    version: int | None = None
    alias: str | None = None
    split: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise BadInput(
                f'"{text}" is not a reference',
                "Write NAME, NAME@VERSION, NAME@ALIAS, each with :SPLIT where a split is meant.",
                text=text,
            )
        at = match["at"]
        number = int(at) if at is not None and at.isdigit() else None
        return cls(match["name"], number, at if number is None else None, match["split"])

    def __str__(self) -> str:
        at = self.version if self.version is not None else self.alias
        return (
            self.name
            + (f"@{at}" if at is not None else "")
            + (f":{self.split}" if self.split else "")
        )

    def pinned(self, version: int) -> Reference:
        """The same reference with the version it resolved to."""
        return Reference(self.name, version, None, self.split)
