"""scale_controller.py HOME RUN COUNT: the controller's own process, as it is always started, but
that its write transactions are counted, in the file COUNT (int64)."""

import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from penstock.training import controller


class Counting:
    """A meta store that counts what is written to it."""

    def __init__(self, meta: Any, path: str) -> None:
        self._meta = meta
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        self._count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._meta, name)

    @contextmanager
    def write(self, *lease: Any) -> Iterator[Any]:
        self._count += 1
        os.pwrite(self._file, struct.pack("<q", self._count), 0)
        with self._meta.write(*lease) as tx:
            yield tx


def main() -> int:
    home, run, path = sys.argv[1:]
    opened = controller.open_stores

    def counted(*given: Any) -> Any:
        stores = opened(*given)
        return replace(stores, meta=Counting(stores.meta, path))

    controller.open_stores = counted
    return controller.main([home, run])


if __name__ == "__main__":
    sys.exit(main())
