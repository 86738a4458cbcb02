"""Machines that a run had places on, also before its keeper was started again: what it left there
is removed at its end. By their addresses: a node that Ray gave up comes back as another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from penstock.base import log

_log = log.logger("keeper")


class Used:
    """Addresses, in a file that goes with the run's runtime folder. Written by one keeper."""

    def __init__(self, runtime: Path) -> None:
        self._file = runtime / "nodes.json"
        self._addresses: set[str] = set()
        with suppress(OSError, json.JSONDecodeError):
            self._addresses = set(json.loads(self._file.read_text()))

    def add(self, address: str) -> None:
        if address in self._addresses:
            return
        self._addresses.add(address)
        draft = self._file.with_suffix(".new")
        try:
            draft.write_text(json.dumps(sorted(self._addresses)))
            draft.replace(self._file)
        except OSError as error:  # this keeper knows it all the same
            _log.warning("machines that are used cannot be noted: %s", error)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._addresses))
