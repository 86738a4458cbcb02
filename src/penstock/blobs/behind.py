"""Puts that end beside the caller's work: disks and networks are waited for once, not at each blob.

A map worker puts a unit's blobs and goes on with the next unit; before it says that units are done
it calls `settle`, and from then on all is as durable as after any put.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, cast

from penstock.blobs.port import Begun, Blobs

_THREADS = 4  # they wait, and compute next to nothing
_MOST_OPEN = 64  # puts begun and not finished
_MOST_HELD = 64 << 20  # bytes of them in memory


class Behind:
    """A store whose `put` hashes and returns; every other call waits for the puts before it.

    Use it as `blobs`, in one thread. Owns its threads, which start with the first put and end with
    `close` (or the `with` block); puts that were not settled by then are dropped or finish, and
    nobody may refer to them. What a put raises is raised by `settle`, or by the next call.
    """

    def __init__(self, inner: Blobs) -> None:
        self._inner = inner
        self._open: deque[tuple[Begun, Future[None]]] = deque()
        self._held = 0
        self._pool: ThreadPoolExecutor | None = None
        self._ended = threading.Event()

    @property
    def blobs(self) -> Blobs:
        """Itself, as what it does."""
        return cast(Blobs, self)

    @property
    def url(self) -> str:
        """For others, who may look at once: after the puts."""
        self.settle()
        return self._inner.url

    def put(self, data: bytes | memoryview | Iterable[bytes], *, mend: bool = False) -> str:
        begun = self._inner.begin(data, mend=mend)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="penstock-puts")
        self._open.append((begun, self._pool.submit(self._finish, begun)))
        self._held += begun.held
        while len(self._open) > _MOST_OPEN or self._held > _MOST_HELD:
            self._wait()
        return begun.digest

    def settle(self) -> None:
        """Every blob that was put is durable and visible. Raises what the first that failed did."""
        while self._open:
            self._wait()

    def close(self) -> None:
        """Let go of what was not settled, and end the threads."""
        self._ended.set()
        self._open.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    def _finish(self, begun: Begun) -> None:
        if self._ended.is_set():
            begun.drop()
        else:
            begun.finish()

    def _wait(self) -> None:
        begun, future = self._open.popleft()
        self._held -= begun.held
        future.result()

    def __getattr__(self, name: str) -> Any:
        """All else: called after the puts."""
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def settled(*given: Any, **named: Any) -> Any:
            self.settle()
            return found(*given, **named)

        return settled

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
