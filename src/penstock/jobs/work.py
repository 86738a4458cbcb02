"""What a room above hands to a controller: the only thing that knows what is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from penstock.jobs.stores import Stores
from penstock.meta import Writer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """A question that a rank asked. `id` is the rank's own number for it."""

    rank: int
    id: int
    kind: str
    payload: dict[str, Any]


class Control(Protocol):
    """What a work may do while the controller runs it."""

    stores: Stores
    run_id: str
    attempt: int

    @property
    def generation(self) -> int: ...

    def commit(self, change: Callable[[Writer], T], alone: bool = False) -> T:
        """Run `change` in one transaction under the lease, `alone` where others may change it too
        (`Meta.write`). Raises LeaseLost, Unavailable."""
        ...

    def event(self, kind: str, body: dict[str, Any]) -> None:
        """Append an event of this run in a transaction of its own."""
        ...

    def reply(self, call: Call, payload: dict[str, Any]) -> None:
        """Answer a call later (`on_call` returned None)."""
        ...

    def refuse(self, call: Call, error: dict[str, Any]) -> None:
        """Answer a call with an error of the family; it is raised in the rank."""
        ...


class Work(Protocol):
    """One run's contents. All methods are called by the controller's one thread."""

    shape: Literal["gang", "map"]
    entry: str  # "module:function" that every rank runs: (channel, descriptors, payload) -> None

    def open(self, control: Control) -> None:
        """Once, under the lease, before anything starts."""
        ...

    def start(self, failures: int, room: int | None) -> dict[str, Any]:
        """The payload for every rank of a new attempt. The previous gang is gone.

        failures  attempts in a row that ended before their time, without progress
        room      ranks that there is room for at once; None: that is not known, or no limit
        The run's spec then says how many ranks the attempt has.
        """
        ...

    def resize(self, spec: dict[str, Any], room: int | None) -> str | None:
        """Called often with the row's spec: why a gang of another size should take over, if so."""
        ...

    def committed(self) -> int:
        """A number that grows with durable progress (for training: the newest saved step)."""
        ...

    def kept(self) -> int:
        """The newest step whose state the agent holds whole in memory, of use to go on from; 0:
        none."""
        ...

    def on_call(self, call: Call) -> dict[str, Any] | None:
        """Answer, or None to answer later. An error of the family is raised in the rank."""
        ...

    def on_tell(self, rank: int, kind: str, payload: dict[str, Any]) -> None: ...
    def on_kept(self, gang: int, step: int, world_size: int) -> None:
        """The agent holds the state of this gang and step whole, by all its seats; 0: none."""
        ...

    def on_handed(self, rank: int, step: int) -> None: ...
    def on_sidecar(self, name: str, body: dict[str, Any]) -> None: ...

    def tick(self, steps: list[int]) -> dict[str, Any] | None:
        """Called often. May return {"save": margin} to ask all ranks for a checkpoint."""
        ...

    def drain(self) -> None:
        """The run is to stop: give ranks nothing new to do."""
        ...

    def finish(self, results: dict[int, dict[str, Any]]) -> dict[str, Any]:
        """All ranks returned: the run's result, committed by the controller."""
        ...

    def waits(self, grace: float | None) -> bool:
        """Asked often when no rank is left: whether something is still to come before the end.

        grace  seconds that are left, where the run's place is taken away; None: no such limit
        """
        ...

    def close(self) -> None:
        """Once, when no process of the run is left; the run's end is committed next."""
        ...
