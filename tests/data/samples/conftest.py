"""Sources in memory, and episodes of a robot with a camera beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from penstock.base.hashing import digest_json
from penstock.data.columns import Column, column_of_value


class Memory:
    """Columns in memory as a source; counts what it was asked for."""

    def __init__(self, data: dict[str, Any], name: str = "") -> None:
        self.data = data
        self.columns = [_column(name, values) for name, values in data.items()]
        self.identity = digest_json([name, {k: str(v) for k, v in data.items()}])
        self.gathered: dict[str, int] = dict.fromkeys(data, 0)
        self.calls: list[tuple[str, Any]] = []

    def __len__(self) -> int:
        return len(next(iter(self.data.values())))

    def gather(self, rows: Any) -> dict[str, Any]:
        return {each.name: self._take(each.name, rows) for each in self.columns}

    def pick(self, rows: Any, names: Sequence[str]) -> dict[str, Any]:
        return {name: self._take(name, rows) for name in names}

    def _take(self, name: str, rows: Any) -> Any:
        self.gathered[name] += len(rows)
        values = self.data[name]
        if isinstance(values, np.ndarray):
            return np.take(values, rows, axis=0)
        return [values[row] for row in rows.tolist()]

    def ahead(self, rows: Any) -> None:
        self.calls.append(("ahead", rows.tolist()))

    def done(self, rows: Any) -> None:
        self.calls.append(("done", rows.tolist()))

    def close(self) -> None:
        self.calls.append(("close", None))


def _column(name: str, values: Any) -> Column:
    if isinstance(values, np.ndarray):
        kind = "tensor" if values.ndim > 1 else "number"
        return Column(name, kind, values.dtype.name, values.shape[1:])
    first = next(value for value in values if value is not None)
    if isinstance(first, np.ndarray):
        return Column(name, "list", first.dtype.name)
    found = column_of_value(name, first)
    assert found is not None
    return found


@pytest.fixture(scope="session")
def memory() -> type[Memory]:
    return Memory


@pytest.fixture(scope="session")
def episodes() -> Callable[..., Memory]:
    """`episodes(5, 3)`: episodes "a" of 5 rows and "b" of 3, 10 a second; x is the row's number."""

    def make(*rows: int, rate: float = 10.0, **more: Any) -> Memory:
        total = sum(rows)
        names = [chr(ord("a") + number) for number, many in enumerate(rows) for _ in range(many)]
        times = np.concatenate([np.arange(many) / rate for many in rows])
        x = np.arange(total)
        return Memory({"episode": names, "time": times, "x": x, **more})

    return make
