"""An actor that looks at its node for the doctor. Ray imports this module by name on the node, so
a Penstock that has it must be installed there."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import ray

from penstock.base import process
from penstock.jobs.probing import here
from penstock.jobs.probing.lines import Line, Listener, reached, sent

_AT_ONCE = 8  # others that are tried at a time


class Examiner:
    """Owns a listener at the address by which Ray knows the node; both end with the actor."""

    def __init__(self) -> None:
        process.set_name("penstock-probe")
        self._address = ray.util.get_node_ip_address()
        self._listener: Listener | None = None
        self._why = ""
        try:
            self._listener = Listener(self._address)
        except OSError as error:
            self._why = error.strerror or str(error)

    def open(self) -> dict[str, Any]:
        """versions; "line": the way to it, or "error": why there is none."""
        found: dict[str, Any] = {"address": self._address, "versions": here.versions()}
        if self._listener is None:
            return {**found, "error": f"nothing can listen at {self._address}: {self._why}"}
        return {**found, "line": asdict(self._listener.line)}

    def clock(self) -> float:
        return time.time()

    def facts(self, blobs: dict[str, Any] | None, named: list[str]) -> dict[str, Any]:
        return here.facts(self._address, blobs, named)

    def reach(self, lines: dict[str, dict[str, Any]], timeout: float) -> dict[str, Any]:
        """name -> what `lines.reached` says, of the listeners of other nodes."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            begun = {
                name: pool.submit(reached, Line(**line), timeout) for name, line in lines.items()
            }
            return {name: each.result() for name, each in begun.items()}

    def send(self, line: dict[str, Any], most: int, seconds: float, timeout: float) -> Any:
        return sent(Line(**line), most, seconds, timeout)
