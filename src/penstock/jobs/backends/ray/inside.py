"""What runs in Ray's workers: an agent's host on each node, and somebody who looks at the cluster.

Ray imports this module by name on every node, so the same Penstock has to be installed there; the
keeper compares what `versions` says.
"""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import threading
import time
from dataclasses import asdict
from typing import Any

import ray

import penstock
from penstock.base import process
from penstock.base.errors import PenstockError
from penstock.jobs.backends import hosting

_MOMENT = 10.0  # seconds for whoever ended an agent to say so
_ALONE = 2.0  # seconds after which nobody can be expected to end this process


def versions() -> dict[str, str]:
    """Of all that has to be the same wherever a run's processes are."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, "penstock": penstock.__version__}


class Host:
    """An actor with one agent, which ends with it. Holds the node's resources for its ranks.

    spec   of `orders.for_agent`
    slots  ranks that the resources are for
    Owns a thread that waits for the agent's end: an agent that ends by itself, because its
    controller is gone, leaves neither actor nor placement group.
    """

    def __init__(self, name: str, spec: dict[str, Any], slots: int) -> None:
        process.set_name("penstock-host")
        for variable in [each for each in os.environ if each.startswith("RAY_")]:
            del os.environ[variable]  # ranks know nothing of Ray, nor of its token
        self._hosted: hosting.Hosted | None = None
        self._facts: dict[str, Any] = {"name": name, "slots": slots, **versions()}
        self._facts["host"] = socket.gethostname()
        self._facts["node"] = ray.get_runtime_context().get_node_id()
        try:
            self._hosted = hosting.host(name, spec, ray.util.get_node_ip_address())
        except PenstockError as error:
            self._facts["error"] = error.as_dict()
        self._run_id = spec["run_id"]
        self._ended = threading.Event()  # by `close`: whoever called it does the rest
        if self._hosted is not None:
            threading.Thread(target=self._watch, args=(self._hosted,), daemon=True).start()

    def _watch(self, hosted: hosting.Hosted) -> None:
        hosted.child.wait()
        if not self._ended.wait(_MOMENT):
            hosted.close()
            self._end(0.0)

    def _end(self, after: float) -> None:
        """This process, and what Ray holds for it. after: seconds"""
        time.sleep(after)
        with contextlib.suppress(ValueError, ray.exceptions.RayError):
            group = ray.util.get_placement_group(f"{self._run_id}/{self._facts['name']}")
            ray.util.remove_placement_group(group)  # which ends this process too
        os._exit(0)

    def place(self) -> dict[str, Any]:
        """The way to the agent, or why there is none; and where it is."""
        if self._hosted is None:
            return self._facts
        return {**self._facts, "door": asdict(self._hosted.door)}

    def close(self, forget: bool) -> None:
        """End the agent, and a little later this process: whoever asked for it may have been cut
        off meanwhile. forget: the run is over, nothing of it is to stay on this node."""
        self._ended.set()
        if self._hosted is not None:
            self._hosted.close()
            self._hosted = None
        if forget:
            hosting.forget(self._run_id)
        threading.Thread(target=self._end, args=(_ALONE,), daemon=True).start()


class Observer:
    """An actor that tells of the cluster what only a process inside can ask for."""

    def nodes(self) -> list[dict[str, Any]]:
        """Those that live. total, available: resources by name; draining: seconds until it is
        taken away, None: it is not to be."""
        from ray._private.state import state

        free = state.available_resources_per_node()
        leaving = state.get_draining_nodes()
        found = []
        for row in ray.nodes():
            if row["Alive"]:
                name = row["NodeID"]
                until = leaving.get(name)
                left = None if until is None else max(0.0, until / 1000 - time.time())
                about = {"id": name, "address": row["NodeManagerAddress"], "draining": left}
                host = {"host": row["NodeManagerHostname"], "labels": row.get("Labels", {})}
                resources = {"total": row["Resources"], "available": free.get(name, {})}
                found.append({**about, **host, **resources})
        return found
