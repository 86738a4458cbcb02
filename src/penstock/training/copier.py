"""A thread that copies state beside the training step.

The loop's thread begins a copy at the end of a step and finishes it before an optimiser changes
what is being read; in between, it is this thread's. Only the loop's thread can say at once whether
what was copied had changed meanwhile: an operation that is under way has not been counted yet. So
the copy waits for its word before it is used. A step may take long, or never end: then, after a
while, the copy is compared with the state byte by byte, and used if nothing differs.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from penstock.checkpoints import Copy

_PATIENCE = 1.0  # seconds for the loop's word
_STRIDE, _AT_ONCE = 4096, 4 << 20  # bytes: of a page, and of what is touched before looking up


class Job:
    """One copy. `good`: whether it may be used; None until that is known.

    prepare  called in the copier's thread once the copy is complete, with the seconds of a core
             that it took there
    use      called there with what that gave, if the copy is good
    """

    def __init__(
        self, copy: Copy, prepare: Callable[[float], Any], use: Callable[[Any], None]
    ) -> None:
        self.copy = copy
        self.good: bool | None = None
        self.error: BaseException | None = None
        self._prepare = prepare
        self._use = use
        self._spoken = threading.Event()
        self._over = threading.Event()
        self._speaking = threading.Lock()

    def speak(self, good: bool) -> bool:
        """The loop's word, or that of the comparison: the first one counts, and is given back."""
        with self._speaking:
            if self.good is None:
                self.good = good
        self._spoken.set()
        return self.good

    def carry_out(self) -> None:
        """In the copier's thread."""
        began = time.thread_time()
        try:
            while self.copy.take_turn():
                pass
            self.copy.complete()
            prepared = self._prepare(time.thread_time() - began)
            if not self._spoken.wait(_PATIENCE) and self.copy.is_still_so():
                self.speak(True)
            self._spoken.wait()
            if self.good:
                self._use(prepared)
        except BaseException as error:  # noqa: BLE001 - it is raised in the loop's thread
            self.error = error
        finally:
            self._over.set()

    def join(self) -> None:
        """Until it is over; raises what went wrong."""
        self._over.wait()
        if self.error is not None:
            raise self.error


class Warming:
    """Memory that copies will go to. Its pages are asked for beforehand: the first write to each
    costs more than the copy."""

    def __init__(self, views: Sequence[memoryview]) -> None:
        self._views = views
        self.touched = 0  # bytes

    def carry_out(self, hurry: Callable[[], bool]) -> None:
        """Read a byte of every page, without Python's lock, until there is something better to do.
        What is in them stays."""
        for view in self._views:
            pages = np.frombuffer(view, dtype=np.uint8)
            for low in range(0, pages.size, _AT_ONCE):
                if hurry():
                    return
                pages[low : low + _AT_ONCE : _STRIDE].max()
                self.touched += min(_AT_ONCE, pages.size - low)


class Copier:
    """One rank's. One copy at a time. Its thread is started with the first, and ends by `close`."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job | Warming | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def begin(self, job: Job | Warming) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="checkpoint-copy", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def close(self) -> None:
        """The thread ends after what it has."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if isinstance(job, Warming):
                job.carry_out(hurry=lambda: not self._jobs.empty())
            else:
                job.carry_out()
            del job  # it holds the state's tensors
