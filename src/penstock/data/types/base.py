"""What every semantic type is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.data.columns import Column, common


@dataclass(frozen=True)
class Type:
    """The base of all: what fits, and how a column says so."""

    meaning: ClassVar[str] = ""
    fits: ClassVar[str] = "anything"

    def reasons(self, column: Column) -> list[str]:
        """Why a column does not fit; empty when it does."""
        raise NotImplementedError

    def check(self, column: Column) -> Column:
        """The column with this meaning. Raises BadInput that lists all that is wrong."""
        column = self._kept(column)
        if reasons := self.reasons(column):
            raise BadInput(
                f'column "{column.name}" is {describe(column)}, which is no '
                f"{type(self).__name__}: {'; '.join(reasons)}",
                f"{type(self).__name__} fits {self.fits}.",
                column=column.name,
                reasons=reasons,
            )
        return dataclasses.replace(column, meaning=self.meaning, options=self.options)

    @property
    def varies(self) -> bool:
        """Whether arrays are kept as lists even where they are equally long."""
        return False

    @property
    def options(self) -> dict[str, Any]:
        """The fields that say more than their default, as JSON has them."""
        return {
            each.name: list(value) if isinstance(value, tuple) else value
            for each in dataclasses.fields(self)
            if (value := getattr(self, each.name)) != each.default
        }

    def decode(self, value: Any, place: str = "") -> Any:
        """What a model can use of one value; most values are it already.

        place  where the value comes from, for the error
        """
        return value

    def wrong(self, values: pa.Array) -> pa.Array | None:
        """Which values of a column that fits are not what the type says: bool [n], or None when
        nothing can be wrong."""
        return None

    def _kept(self, column: Column) -> Column:
        return (
            common(column, Column(column.name, "list", "null")) or column if self.varies else column
        )


Types = Mapping[str, Type]


def describe(column: Column) -> str:
    """A column's type for people: "float32[3]", "list of int64", "text"."""
    return column.kind if column.kind in ("text", "bytes", "time", "reference") else str(column)


def whole(column: Column) -> bool:
    return "int" in column.dtype


def one_of(column: Column, *kinds: str) -> list[str]:
    return [] if column.kind in kinds else [f"it is kept as {column.kind}"]
