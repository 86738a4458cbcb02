"""The part of a link that has no memory tier: where no agent outlives the ranks."""

from __future__ import annotations

from typing import Any

from penstock.jobs.link import Buffer, Lent


class DiskOnly:
    """What is in this process's memory dies with it, so nobody would be there to read it."""

    def keep(
        self, buffer: Buffer, step: int, seal: dict[str, Any], seconds: float, hands: bool
    ) -> None: ...

    def lent(self, gang: int, step: int) -> list[Lent]:
        return []

    def pace(self) -> None: ...

    def keep_at(self) -> int:
        return 0
