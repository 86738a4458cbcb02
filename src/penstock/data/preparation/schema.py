"""One schema of all units: gaps filled from those that have values, differences listed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from penstock.base.errors import BadInput
from penstock.data.columns import Column, common
from penstock.data.keys import KEY

Example = Callable[[str], str]
_MOST = 50  # differences that are told


def merged(found: Sequence[tuple[Example, bool, Sequence[Column]]]) -> list[Column]:
    """The columns of all units, without the key that is added.

    found  (tells the place of the first row that has a value in a column, whether a column of the
           data is the key, its columns), in order
    Raises BadInput that lists every difference, and columns without any value.
    """
    whole: dict[str, Column] = {}
    where: dict[str, Example] = {}
    differences: list[str] = []
    for number, (place, own, columns) in enumerate(found):
        ours = {each.name: each for each in columns if own or each.name != KEY}
        for name in whole:
            if name not in ours:
                differences.append(f'"{name}" is not in {place("")}, but in {where[name](name)}')
        for name, column in ours.items():
            if name not in whole:
                if number:
                    differences.append(
                        f'"{name}" is in {place(name)}, but not in {found[0][0]("")}'
                    )
                whole[name], where[name] = column, place
                continue
            both = joined(whole[name], column)
            if both is None:
                differences.append(
                    f'"{name}" is {column} in {place(name)}, '
                    f"but {whole[name]} in {where[name](name)}"
                )
            else:
                where[name] = place if not whole[name].known else where[name]
                whole[name] = both
    if differences:
        shown = differences[:_MOST]
        raise BadInput(
            "the inputs do not have one schema:\n  " + "\n  ".join(shown),
            "Make every row alike in the steps: the same columns, dtypes and shapes.",
            differences=shown,
        )
    refuse_unknown(whole.values())
    return list(whole.values())


def refuse_unknown(columns: Iterable[Column]) -> None:
    """Raise BadInput for a column that nothing tells the type of."""
    for column in columns:
        if not column.known:
            raise BadInput(
                f'column "{column.name}" has no value in any row, so it has no type',
                "Leave it out, or give at least one value.",
                column=column.name,
            )


def joined(one: Column, other: Column) -> Column | None:
    """The column that keeps the values of both; None where none does."""
    if not one.known or not other.known:
        known, gap = (one, other) if one.known else (other, one)
        return (common(known, gap) or known) if gap.kind == "list" else known
    both = common(one, other)
    if both is None or (one.meaning == other.meaning and one.options == other.options):
        return both
    if one.meaning != other.meaning:
        return replace(both, meaning="", options={})
    same = {k: v for k, v in one.options.items() if other.options.get(k) == v}
    return replace(both, options=same)


def fits(columns: Sequence[Column], whole: Sequence[Column]) -> bool:
    """Whether a unit's rows are kept as the whole's are."""
    kept = {each.name: each.storage for each in columns}
    return kept == {each.name: each.storage for each in whole}
