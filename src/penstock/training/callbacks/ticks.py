"""Steps whose number only the trainer knows."""

from __future__ import annotations

from collections.abc import Iterator


class Ticks:
    """For `run.steps`: as many steps as are taken until it is `over`."""

    endless = True

    def __init__(self) -> None:
        self.over = False

    def __iter__(self) -> Iterator[int]:
        while not self.over:
            yield 0
