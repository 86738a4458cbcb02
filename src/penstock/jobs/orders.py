"""What a controller tells its agent to run: the agent's own spec, and the order for a gang."""

from __future__ import annotations

from typing import Any

from penstock.base.settings import Settings
from penstock.jobs.decide import Starting
from penstock.jobs.stores import Stores
from penstock.jobs.work import Work
from penstock.records import Run


def for_agent(stores: Stores, run: Run, restart: list[str] | None) -> dict[str, Any]:
    """restart  the command line that starts the run's controller again; None: it is no process"""
    return {
        "run_id": run.id,
        "logs": str(stores.layout.logs(run.id)),
        "scratch": str(stores.layout.scratch(run.id)),
        "preload": run.spec["preload"],
        "image_env": run.spec["image_env"],
        "sidecars": run.spec["sidecars"],
        "cwd": run.spec["cwd"],
        "controller": restart,
        "memory_bytes": stores.settings.memory_tier_bytes,
        "neighbours": stores.settings.cache_neighbours,
    }


def for_gang(
    run: Run,
    work: Work,
    *,
    gang: int,
    generation: int,
    payload: dict[str, Any],
    env: dict[str, str],
    hang_seconds: float | None,
) -> dict[str, Any]:
    """env  what the claimed devices ask for, beside the run's own"""
    return {
        "gang": gang,
        "generation": generation,
        "shape": work.shape,
        "world_size": run.spec["world_size"],
        "sizes": _sizes(run.spec),
        "entry": work.entry,
        "payload": payload,
        "env": {**run.spec["rank_env"], **env},
        "hang_seconds": hang_seconds,
    }


def _sizes(spec: dict[str, Any]) -> list[int]:
    """[fewest, most] ranks that a gang of this run may have."""
    elastic = spec.get("elastic") or {}
    world = int(spec["world_size"])
    return [int(elastic.get("low", world)), int(elastic.get("high", world))]


def hang_seconds(settings: Settings, shape: str, state: Starting) -> float | None:
    """How long this attempt's ranks may be silent: twice as long after each hang, so that steps
    that were only slow get through. None: nobody watches."""
    wanted = settings.hang_seconds
    if wanted == "off" or shape == "map":
        return None
    return float(wanted * 2**state.budget.hang)
